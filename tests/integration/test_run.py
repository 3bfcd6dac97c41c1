"""`sidtune run`: all stages once, and afterwards only what a change touches."""

from __future__ import annotations

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
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.pipeline import run as room

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


def test_everything_is_done_once(shop: Path) -> None:
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

    # One that was made otherwise is kept, and said to be another.
    results = Path(yaml.safe_load(shop.read_text())["output_dir"]) / "evaluation"
    results.rename(results.with_name("whole"))
    evaluate(EvaluationRequest(results.parent, limit=3, baselines=False))
    assert "3 rows, --limit, --no-baselines →" in stages(call(shop)[1])["evaluate"]

    status, other = call(shop, "sids.seed=7")
    assert status == 2
    assert "data.index" in "".join(other) or "SID" in "".join(other), other
    assert "output_dir" in other[-1]


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
