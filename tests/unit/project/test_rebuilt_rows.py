"""The script that rebuilds training rows from held-out ones."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "rebuild_rows.py"
COLUMNS = ["user_id", "history_item_title", "item_title", "history_item_id", "item_id"]
COLUMNS += ["history_item_sid", "item_sid"]


def row(user: str, history: list[int], target: int) -> list[object]:
    titles, sids = ([f"{kind}{item}" for item in history] for kind in ("t", "s"))
    return [user, titles, f"t{target}", history, target, sids, f"s{target}"]


def write(path: Path, *rows: list[object]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def test_each_item_of_the_earliest_history_is_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "valid.csv", row("u", [1, 2, 3], 4), row("u", [1, 2, 3, 4], 5))
    write(tmp_path / "test.csv", row("u", [3, 4, 5], 6), row("w", [7, 8], 9), row("v", [7], 8))
    write(tmp_path / "expected.csv", row("u", [1], 2), row("u", [1, 2], 3), row("w", [7], 8))
    monkeypatch.setattr(sys, "argv", ["rebuild_rows.py", str(tmp_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert (tmp_path / "train.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()
    with pytest.raises(FileExistsError):
        runpy.run_path(str(SCRIPT), run_name="__main__")
