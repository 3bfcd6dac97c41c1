"""Links in folders that are written to: never written nor deleted through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.readers import chunks
from tests.tiny_data import tiny_config

from sidtune.base.errors import UserError
from sidtune.base.storage import write_text
from sidtune.encoding.corpus import cached_task
from sidtune.evaluation import results
from sidtune.model.new_base import create_base
from sidtune.runs.checkpoints import remove
from sidtune.runs.resumed import refuse_links
from sidtune.training.train import train


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file, which stays as it is."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "kept.txt").write_text("kept")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["kept.txt"]
    assert (folder / "kept.txt").read_text() == "kept"


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-5",
        ".checkpoint-5.partial",
        ".final_checkpoint.partial",
        "config.yaml",
        "metrics.jsonl",
    ],
)
@pytest.mark.parametrize("to", ["", "kept.txt", "nothing"])
def test_a_link_in_a_runs_folder_is_refused(
    tmp_path: Path, elsewhere: Path, name: str, to: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(elsewhere / to)
    with pytest.raises(UserError, match=f"{name} is a link to .*elsewhere"):
        refuse_links([tmp_path / "not there", run])


def test_a_run_does_not_begin_with_a_link_in_its_folder(tmp_path: Path, elsewhere: Path) -> None:
    config = tiny_config(tmp_path)
    config.output_dir.mkdir()
    (config.output_dir / ".final_checkpoint.partial").symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a link to"):
        train(config)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large")
    (tmp_path / "large" / "config.yaml").touch()
    refuse_links([tmp_path / "run"])


def test_a_checkpoint_that_is_a_link_is_not_deleted_through(
    tmp_path: Path, elsewhere: Path
) -> None:
    (tmp_path / "checkpoint-5").symlink_to(elsewhere)
    remove(tmp_path / "checkpoint-5")
    assert not (tmp_path / "checkpoint-5").exists()


def test_results_are_not_written_through_a_link(tmp_path: Path, elsewhere: Path) -> None:
    folder = tmp_path / "evaluation"
    folder.symlink_to(elsewhere)
    with pytest.raises(UserError, match="evaluation is a link to"):
        results.make_folder(folder, refuse_link=True)
    assert results.make_folder(folder) == folder, "where somebody named it"
    folder.unlink()
    folder.mkdir()
    (folder / "test.json").symlink_to(elsewhere / "kept.txt")
    write_text(folder / "test.json", "new")
    assert (folder / "test.json").read_text() == "new"
    assert not (folder / "test.json").is_symlink()


def test_a_cache_entry_that_is_a_link_is_replaced(tmp_path: Path, elsewhere: Path) -> None:
    cache = tmp_path / "cache"
    entry = cached_task("t", {"a": 1}, cache, chunks).folder
    entry.rename(tmp_path / "entry")
    entry.symlink_to(elsewhere)
    assert len(cached_task("t", {"a": 1}, cache, chunks)) == 3
    assert not entry.is_symlink()


def test_a_new_base_is_not_written_through_a_link(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / ".new.partial").symlink_to(elsewhere)
    create_base(tmp_path / "new", ["some text"], hidden=32, layers=1, vocab=300)
    assert (tmp_path / "new" / "config.json").is_file()
