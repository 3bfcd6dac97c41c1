"""A second start of training: what the rows are is remembered, until a file or a
setting changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.tiny_data import tiny_config

from sidtune.base.errors import UserError
from sidtune.base.terminal import console
from sidtune.checks import data as data_checks
from sidtune.checks.run import refuse_errors, run_checks
from sidtune.inputs import Inputs
from sidtune.tasks import source
from sidtune.tasks.config import Config
from sidtune.training.train import train

SHORT: dict[str, Any] = {
    "training": {"max_steps": 2, "batch_size": 16},
    "eval": {"every": 2, "patience": None},
    "tasks": {"sid_next": None, "fusion": None},
}


def refuse(*_: object) -> NoReturn:
    raise AssertionError("rows were read")


@pytest.fixture
def read_nothing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From this call on whoever reads rows fails."""

    def forbid() -> None:
        monkeypatch.setattr(source, "load_rows", refuse)
        monkeypatch.setattr(data_checks, "disagreements", refuse)

    return forbid


def with_a_leak(folder: Path, **sections: Any) -> Config:
    """A shop whose first training row is a validation row too."""
    config = tiny_config(folder, **{**SHORT, **sections})
    row = config.data.train.read_text().splitlines()[1]
    config.data.valid.write_text(config.data.valid.read_text() + row + "\n")
    return config


def warned(config: Config) -> str:
    with console.capture() as said:
        refuse_errors(Inputs(config))
    return " ".join(said.get().split())


def test_the_second_start_reads_no_rows(tmp_path: Path, read_nothing: Callable[[], None]) -> None:
    config = tiny_config(tmp_path, **SHORT)
    first = train(config)
    read_nothing()
    again = config.model_copy(update={"output_dir": tmp_path / "again"})
    second = train(again)
    assert first is not None
    assert second is not None
    assert second.best_loss == first.best_loss
    names = ("sid_catalogue.parquet", "sid_recommender.json")
    assert all(
        (first.folder / name).read_bytes() == (second.folder / name).read_bytes() for name in names
    )


def test_what_was_found_is_said_again(tmp_path: Path, read_nothing: Callable[[], None]) -> None:
    config = with_a_leak(tmp_path)
    said = warned(config)
    assert "1 rows (user, history and target) are also in the training file" in said
    read_nothing()
    assert warned(config) == said
    with pytest.raises(AssertionError, match="rows were read"):
        run_checks(Inputs(config))


@pytest.mark.parametrize("name", ["train", "valid", "test", "items"])
def test_a_changed_file_is_looked_at_afresh(
    tmp_path: Path, name: str, read_nothing: Callable[[], None]
) -> None:
    config = tiny_config(tmp_path, **SHORT)
    refuse_errors(Inputs(config))
    file: Path = getattr(config.data, name)
    file.write_text(file.read_text() + "\n")
    read_nothing()
    with pytest.raises(AssertionError, match="rows were read"):
        refuse_errors(Inputs(config))


@pytest.mark.parametrize(
    "change", [{"data": {"dedup": True}}, {"encoding": {"cutoff_len": 100}}, {"seed": 7}]
)
def test_a_changed_setting_is_looked_at_afresh(
    tmp_path: Path, change: dict[str, Any], read_nothing: Callable[[], None]
) -> None:
    refuse_errors(Inputs(tiny_config(tmp_path, **SHORT)))
    read_nothing()
    cache = {"encoding": {"cache_dir": str(tmp_path / "cache"), **change.get("encoding", {})}}
    refuse_errors(Inputs(tiny_config(tmp_path, **{**SHORT, "eval": {"every": 3}})))
    with pytest.raises(AssertionError, match="rows were read"):
        refuse_errors(Inputs(tiny_config(tmp_path, **{**SHORT, **change, **cache})))


def test_prompts_of_evaluation_are_looked_at_afresh(tmp_path: Path) -> None:
    """When another task asks them, and when their template changes, though no task trains it."""
    apart, words = tmp_path / "apart.yaml", "A user's interactions, oldest first"
    # Segments within a word become other tokens than the whole text.
    apart.write_text(
        f'sid_next: {{prompt: ["{words[:4]}", "{words[4:]}", "{{history_sids}}"],'
        ' response: ["{target_sid}"]}'
    )
    both: dict[str, Any] = {"tasks": {"sid_next": None, "sid_sequence": None}}
    only: dict[str, Any] = {"tasks": {"title_to_sid": None}}
    file, found = {"template": {"file": str(apart)}}, "tokenizer(prompt) gives different token ids"
    for before, after in (
        (both | file | {"eval": {"task": "sid_sequence"}}, both | file | {"eval": {"task": None}}),
        (only, only | file),
    ):
        assert found not in warned(tiny_config(tmp_path, **before))
        assert found in warned(tiny_config(tmp_path, **after))


def test_an_error_is_found_every_time(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **SHORT)
    config.data.test.write_text("user_id,history,item_id\nu,[77],1\n")  # type: ignore[union-attr]
    for _ in range(2):
        with pytest.raises(UserError, match="77"):
            refuse_errors(Inputs(config))
