"""`sidtune run`: all stages once, and afterwards only what a change touches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

pytest.importorskip("ibis", reason="pip install 'sidtune[prepare]'")
pytest.importorskip("sklearn", reason="pip install 'sidtune[sids]'")

from sidtune.base.errors import UserError
from sidtune.commands.demo_shop import write_demo_events
from sidtune.commands.main import app
from sidtune.config.search import RankOptions
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.evaluation.report import Report
from sidtune.pipeline import run as room
from sidtune.runs.bundle import read_bundle
from sidtune.runs.files import beside
from sidtune.runs.output import write_config
from sidtune.tasks.config import Config

SHORT = {"epochs": 1, "batch_size": 16, "warmup": 2, "workers": 0}
STAGES = ("prepare", "sids", "model", "train", "evaluate")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    tables = write_demo_events(folder / "data", users=30)
    tree: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "events": {"files": str(tables.events), "user": "customer", "item": "sku", "time": "ts"},
        "catalogue": {"file": str(tables.items), "id": "sku", "title": "name"},
        "encoding": {"cache_dir": str(folder / "cache")},
        "training": SHORT,
        "eval": {"ranking": {"every": 1, "sample": 10}, "every": 0.5},
        "logging": {"report": False},
    }
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def call(*arguments: object) -> tuple[int, list[str]]:
    result = CliRunner().invoke(app, ["run", *map(str, arguments)], catch_exceptions=True)
    if isinstance(result.exception, UserError):
        return 2, str(result.exception).splitlines()
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout.splitlines()


def stages(lines: list[str]) -> dict[str, str]:
    """Stage → what its line says."""
    said = [line.partition(": ") for line in lines]
    return {stage: text for stage, _, text in said if stage in STAGES}


def test_everything_is_done_once(shop: Path, tmp_path: Path) -> None:
    folder = shop.parent
    status, lines = call(shop)
    assert status == 0
    first = stages(lines)
    assert list(first) == ["prepare", "sids", "model", "train"]
    assert not any("done before" in text for text in first.values())
    assert any(line.startswith("by item") and "HR@10" in line for line in lines), (
        "a table with the metrics"
    )
    assert any("transitions" in line for line in lines), "beside the baselines"
    assert not any("by SID" in line for line in lines), "the same, where no SID is shared"
    status, again = call(shop)
    assert status == 0
    assert list(stages(again)) == list(STAGES)
    assert all(text.startswith("done before") for text in stages(again).values())
    # The same figures, read back.
    assert lines[-15:] == again[-15:]

    # Another ranker: the evaluation that is there was made with the one before.
    status, lines = call(shop, "rank.beams=30")
    assert status == 0
    assert "evaluate" not in stages(lines)
    assert "30 beams" in "".join(lines)

    # One that was made with other options is kept.
    results = folder / "run" / "evaluation"
    results.rename(results.with_name("whole"))
    (tmp_path / "stock.txt").write_text("\n".join(read_bundle(results.parent).catalogue.ids[:9]))
    options = RankOptions(normalize="trie")
    evaluate(EvaluationRequest(results.parent, "test", options, candidates=tmp_path / "stock.txt"))
    before = (results / "test.json").read_bytes()
    status, refused = call(shop, "rank.beams=30")
    assert status == 2
    assert "different settings (normalize, candidates_sha256)" in refused[0]
    assert "Move that file away" in refused[-1]
    assert (results / "test.json").read_bytes() == before

    status, other = call(shop, "sids.seed=7")
    assert status == 2
    assert "data.index" in "".join(other) or "SID" in "".join(other), other
    assert "output_dir" in other[-1]


def test_other_rows_are_evaluated_anew(config: Config, run: Path, tmp_path: Path) -> None:
    rows = shutil.copy(config.data.rows_file("test"), tmp_path / "test.csv")
    data = config.data.model_copy(update={"test": rows})
    config = config.model_copy(update={"output_dir": run, "data": data})
    write_config(config)
    whole = room._evaluate(config, 1, False)
    assert room._evaluate(config, 1, False) == whole
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:6]))
    assert room._evaluate(config, 1, False).rows == 5 < whole.rows
    # The baselines of an evaluation with other training rows are not those of the run.
    evaluate(EvaluationRequest(run, train=rows))
    again = room._evaluate(config, 1, False)
    assert again.settings["train"] == str(config.data.train)


def test_other_rows_than_the_run_names_are_refused(
    config: Config, run: Path, tmp_path: Path
) -> None:
    own = config.data.rows_file("test")
    assert own
    same, fewer = tmp_path / "same.csv", tmp_path / "fewer.csv"
    same.write_bytes(own.read_bytes())
    fewer.write_bytes(own.read_bytes()[:-9].rpartition(b"\n")[0] + b"\n")

    def evaluated(test: Path) -> Report:
        data = config.data.model_copy(update={"test": test})
        return room._evaluate(config.model_copy(update={"output_dir": run, "data": data}), 1, False)

    assert evaluated(same) == evaluated(own)
    match = rf"was trained with the test rows of {own}, and now they are those of {fewer}"
    with pytest.raises(UserError, match=match):
        evaluated(fewer)


def test_the_folder_beside_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (tmp_path, Path(".")):
        assert beside(run, "rl") == tmp_path.with_name(f"{tmp_path.name}-rl")
    assert beside(Path("runs/shop"), "rl") == Path("runs/shop-rl")


def test_faults_of_the_file_come_before_the_first_stage(shop: Path, tmp_path: Path) -> None:
    status, lines = call(shop, f"output_dir={tmp_path / 'o'}", "training.epochs=0")
    assert status == 2
    assert "training.epochs" in lines[0]
    assert not (tmp_path / "o").exists()


def test_several_processes_train_and_evaluate(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def launch(processes: int, arguments: list[str]) -> int:
        assert processes == 2
        started.append(arguments)
        return 75

    monkeypatch.setattr(room, "launch", launch)
    other = f"output_dir={tmp_path / 'o'}"
    status, _ = call(shop, other, "--processes", 2)
    assert status == 75, "what the processes returned"
    assert started == [["train", str(shop), other]]
