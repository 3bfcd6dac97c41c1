"""What is read of a run's folder, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.unit.reporting.making import STEPS, entries, plan, ranked, write_run

from sidtune.base.errors import UserError
from sidtune.reporting.record import read_records
from sidtune.runs.files import METRICS, PLAN, RANKED


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "shop")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "shop"))


def test_everything_a_run_left_is_read(run: Path) -> None:
    (record,) = read_records([run])
    assert (record.name, record.plans, record.ranked) == ("shop", [plan()], ranked())
    assert record.entries == entries()
    assert record.series("eval_sid_next_loss")[0] == (10, 5 / 11)
    assert record.report
    assert record.report.rows == 20
    assert record.titles["7"] == "Item 7"


def test_an_evaluation_alone_is_a_record_and_so_is_training_alone(run: Path) -> None:
    (alone,) = read_records([run / "evaluation"])
    assert alone.report
    assert (alone.entries, alone.titles, alone.config) == ([], {}, {})
    shutil.rmtree(run / "evaluation")
    (record,) = read_records([run])
    assert record.report is None
    assert len(record.entries) == len(entries())
    (run / METRICS).unlink()
    with pytest.raises(UserError, match=r"holds neither metrics.jsonl nor an evaluation"):
        read_records([run])


def test_steps_of_stages_are_counted_on(run: Path) -> None:
    for stage in ("stage-1", "stage-2", "stage-10"):
        (run / stage).mkdir()
        shutil.copy(run / METRICS, run / stage)
    (record,) = read_records([run])
    steps = [step for step, _ in record.series("loss")]
    assert steps == list(range(1, 4 * STEPS + 1))


def test_names_take_as_many_parents_as_they_need(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other" / "shop")
    third = shutil.copytree(run, tmp_path / "third")
    assert [record.name for record in read_records([run, third])] == ["shop", "third"]
    names = [record.name for record in read_records([run, Path(other)])]
    assert names == [f"{tmp_path.name}/shop", "other/shop"]
    with pytest.raises(UserError, match="given twice"):
        read_records([run, tmp_path / "other" / ".." / "shop"])


def test_what_is_asked_for_and_missing_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no evaluation of valid") as error:
        read_records([run], "valid")
    assert "sidtune evaluate" in error.value.hint
    with pytest.raises(UserError, match="no such folder"):
        read_records([tmp_path / "nosuch"])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (PLAN, {"steps": "many"}, r"plan.json: steps: "),
        (PLAN, {"length_edges": [0, 1]}, "by_length and length_edges do not match"),
        (RANKED, {"lines": {"ranker": {}}}, r"ranker.json: lines.ranker.hr: "),
        ("evaluation/test.json", {"rankers": {}}, "not an evaluation of this version"),
        ("evaluation/test.json", {"settings": {"beams": 20}}, "not an evaluation of this version"),
        ("evaluation/test.json", {"settings": {"beams": -1}}, r"settings.beams"),
    ],
)
def test_damaged_files_are_refused(
    run: Path, file: str, change: dict[str, object], message: str
) -> None:
    tree = json.loads((run / file).read_text())
    (run / file).write_text(json.dumps({**tree, **change}))
    with pytest.raises(UserError, match=message):
        read_records([run])
