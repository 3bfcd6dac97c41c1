"""Which of a run's evaluations is the best."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidtune.runs.best import chosen

RANKING: Any = SimpleNamespace(metric_for_best_model="eval_ndcg@10", greater_is_better=True)
LOSS: Any = SimpleNamespace(metric_for_best_model="eval_loss", greater_is_better=False)


def ranked(*values: float, error: float = 0.01) -> list[dict[str, float]]:
    """Entries of a log, the first from before the first step."""
    return [
        {"step": 10 * number, "eval_ndcg@10": value, "eval_ndcg@10_error": error}
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ((0.9, 0.1, 0.2, 0.3), 30),
        # Level with the best: the last of them.
        ((0.0, 0.1, 0.3, 0.296), 30),
        ((0.0, 0.3, 0.296, 0.297, 0.2), 30),
        # Not level: half a standard error and more.
        ((0.0, 0.1, 0.3, 0.294), 20),
        # It is the highest value that counts, so that many small steps down do not add up.
        ((0.0, 0.300, 0.296, 0.292, 0.288), 20),
        ((0.0, 0.3), 10),
    ],
)
def test_it_is_the_last_of_those_that_a_sample_cannot_tell_apart(
    values: tuple[float, ...], step: int
) -> None:
    assert chosen(ranked(*values), RANKING) == step


def test_without_an_error_it_is_the_first_of_the_best() -> None:
    assert chosen(ranked(0.0, 0.3, 0.2, 0.3, error=0.0), RANKING) == 10
    losses = [{"step": step, "eval_loss": loss} for step, loss in ((0, 1.0), (4, 3.0), (8, 2.0))]
    others = [{"step": 9, "loss": 0.5}, {"step": 12, "eval_loss": 2.5}]
    assert chosen(losses + others, LOSS) == 8


def test_before_the_first_evaluation_there_is_none() -> None:
    assert chosen([], RANKING) is None
    assert chosen(ranked(0.5), RANKING) is None
