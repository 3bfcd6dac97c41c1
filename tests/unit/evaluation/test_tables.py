"""What an evaluation says below its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.reporting.making import write_run

from sidtune.evaluation.report import Report
from sidtune.evaluation.results import read_report
from sidtune.evaluation.tables import told_without_history
from sidtune.metrics.metrics import proportion


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Report:
    run = write_run(tmp_path_factory.mktemp("runs") / "shop")
    found = read_report(run / "evaluation" / "test.json")
    assert found
    return found


def changed(made: Report, owned: int, rows: int, places: float, **settings: Any) -> Report:
    """With so many targets of validation rows in their history, and such lists."""
    assert made.details
    share = proportion((np.arange(rows) < owned).astype(np.float64))
    name, first = next(iter(made.rankers.items()))
    return replace(
        made,
        settings=made.settings | {"model": "runs/my shop"} | settings,
        details=replace(made.details, repeating=share),
        rankers={name: replace(first, repeated=places)},
    )


@pytest.mark.parametrize(
    ("owned", "rows", "places", "settings", "said"),
    [
        (0, 600, 0.12, {}, "No user has an item twice; 12%"),
        (9, 9_000, 0.02, {}, "Few users have an item twice; 2%"),
        (0, 300, 0.12, {}, None),
        (9, 600, 0.12, {}, None),
        (0, 600, 0.004, {}, None),
        (0, 600, 0.12, {"exclude_history": True}, None),
    ],
)
def test_a_history_that_wastes_places_is_told_of(
    made: Report, owned: int, rows: int, places: float, settings: dict[str, Any], said: str | None
) -> None:
    lines = list(told_without_history(changed(made, owned, rows, places, **settings)))
    assert lines[:1] == ([f"{said} of the top 10 is history. To exclude it:"] if said else [])
    assert all(len(line) <= 80 for line in lines[:1])


def test_the_command_is_that_of_the_split(made: Report) -> None:
    _, command = told_without_history(changed(made, 0, 600, 0.5, split="valid"))
    assert command == (
        "  sidtune evaluate 'runs/my shop' --split valid --beams 10 --exclude-history"
        " --output 'runs/my shop/without-history'"
    )
    assert not list(told_without_history(made)), "validation rows are not known"


def test_the_command_has_the_options_of_the_evaluation(made: Report) -> None:
    options = {"beams": 20, "limit": 900, "candidates": "in stock.txt", "no_rank": True}
    told = changed(made, 0, 600, 0.5, normalize="trie", both_directions=True, **options)
    _, command = told_without_history(told, Path("a.csv"), Path("b.csv"))
    assert command == (
        "  sidtune evaluate 'runs/my shop' --beams 20 --normalize trie --limit 900"
        " --candidates 'in stock.txt' --rows a.csv --train b.csv --both-directions --no-rank"
        " --exclude-history --output 'runs/my shop/without-history'"
    )


def test_the_command_does_not_rely_on_the_beams_of_a_ranker(made: Report) -> None:
    _, command = told_without_history(changed(made, 0, 600, 0.5, ranker_sha256="0", beams=50))
    assert " --beams 50 " in command
