"""The row of an evaluation fits the terminal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sidtune.training.display import callbacks
from sidtune.training.display.callbacks import ConsoleTable, fitting, folded

FIVE = ["sid_next", "item_feature", "fusion", "title_next", "title_to_sid"]
BOTH_WAYS = ["sid_sequence", "sid_sequence_reversed"]


def printed(width: int, tasks: list[str], ranking: list[str]) -> list[str]:
    """Head and one row of a table on a terminal of a width."""
    console = Console(width=width, record=True, quiet=False, highlight=False)
    arguments: Any = SimpleNamespace(metric_for_best_model="loss", greater_is_better=False)
    state: Any = SimpleNamespace(
        is_world_process_zero=True,
        global_step=1_000_000,
        epoch=999.99,
        best_metric=None,
    )
    control: Any = None
    metrics = {"loss": 1.0, **{f"eval_{task}_loss": 12.3456 for task in tasks}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "console", console)
        table = ConsoleTable(tasks, ranking)
        table.on_train_begin(arguments, state, control)
        table.on_log(arguments, state, control, {"loss": 12.3456, "examples_per_second": 9_999.0})
        table.on_evaluate(
            arguments, state, control, metrics | {f"eval_{name}": 0.1234 for name in ranking}
        )
    return console.export_text().splitlines()


@pytest.mark.parametrize("tasks", [FIVE, BOTH_WAYS])
@pytest.mark.parametrize("ranking", [[], ["hr@10", "ndcg@10"]])
def test_nothing_is_cut_in_eighty_columns(tasks: list[str], ranking: list[str]) -> None:
    lines = printed(80, tasks, ranking)
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    row = lines[-1].split()
    assert (row[0], row[-1]) == ("1000000", "best")
    assert row.count("12.3456") == 1 + len(tasks)
    assert row.count("0.1234") == len(ranking)


def test_columns_are_left_out_only_where_they_do_not_fit() -> None:
    lines = printed(120, FIVE, ["hr@10", "ndcg@10"])
    assert lines[-1].split() == [
        "1000000", "999.99", *["12.3456"] * 6, "0.1234", "0.1234", "9999", "best",
    ]  # fmt: skip
    assert fitting(["a", "b", "c"], ["c", "b"], 16) == ["a", "b"]
    assert fitting(["a", "b", "c"], ["c", "b"], 24) == ["a", "b", "c"]


def test_titles_are_folded_at_underscores_and_spaces() -> None:
    assert folded(["sid_sequence_reversed", "title_to_sid", "examples per s", ""]) == [
        ["sid_", "sequence_", "reversed"],
        ["", "title_", "to_sid"],
        ["", "examples", "per s"],
        ["", "", ""],
    ]
