"""Which of a run's evaluations is the best."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidtune.runs.best import is_best

RANKING: Any = SimpleNamespace(metric_for_best_model="eval_ndcg@10", greater_is_better=True)
LOSS: Any = SimpleNamespace(metric_for_best_model="eval_loss", greater_is_better=False)


def best_of(values: tuple[float, ...], error: float = 0.01) -> int:
    """The number of the best, evaluated one after the other."""
    best, highest = -1, None
    for number, value in enumerate(values):
        if is_best({"eval_ndcg@10": value, "eval_ndcg@10_error": error}, highest, RANKING):
            best = number
        highest = max(value, highest or value)
    return best


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ((0.1, 0.2, 0.3), 2),
        # Level with the best: the last of them.
        ((0.1, 0.3, 0.296), 2),
        ((0.3, 0.296, 0.297, 0.2), 2),
        # Not level: half a standard error and more.
        ((0.1, 0.3, 0.294), 1),
        # It is the highest value that counts, so that many small steps down do not add up.
        ((0.300, 0.296, 0.292, 0.288), 1),
        ((0.3,), 0),
    ],
)
def test_it_is_the_last_of_those_that_a_sample_cannot_tell_apart(
    values: tuple[float, ...], best: int
) -> None:
    assert best_of(values) == best


def test_without_an_error_it_is_the_first_of_the_best() -> None:
    assert best_of((0.1, 0.3, 0.2, 0.3), error=0.0) == 1
    assert is_best({"eval_loss": 2.0}, 3.0, LOSS)
    assert not is_best({"eval_loss": 3.0}, 3.0, LOSS)
    assert not is_best({"eval_loss": 3.5}, 3.0, LOSS)
