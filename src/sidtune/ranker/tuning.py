"""Choosing a setting on validation rows, for what scores the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged
from sidtune.data.rows import Rows, drawn
from sidtune.metrics.metrics import gains
from sidtune.ranker.pairs import Asked

CUTOFF = 10
# Rows that are tried: so many, and fewer where there are many items.
FEWEST_ROWS, MOST_ROWS, SCORES, SEED = 300, 5_000, 100_000_000, 0


def best_setting(
    valid: Rows,
    items: int,
    scores: Callable[[Ragged], Iterable[NDArray[np.floating]]],
) -> int:
    """The place of the setting whose scores have the best item-level NDCG@10; of equal ones the
    first.

    Args:
        valid: validation rows, at least one; some are drawn by a fixed seed where there are many.
        items: number of items.
        scores: for some histories, the scores `(rows, items)` of each setting in turn.
    """
    most = max(FEWEST_ROWS, min(MOST_ROWS, SCORES // items))
    rows = valid.take(drawn(len(valid.target), most, SEED))
    gained, done = np.zeros(0), 0
    for part in Asked(rows.history, items).chunks():
        target = rows.target[done : done + len(part)]
        each = [_gain(found, target) for found in scores(part.history)]
        gained = np.array(each) + (gained if len(gained) else 0)
        done += len(part)
    return int(gained.argmax())


def _gain(scores: NDArray[np.floating], target: NDArray[np.integer]) -> float:
    """The sum of NDCG@10 over the rows; equal scores do not push a target down."""
    own = scores[np.arange(len(target)), target]
    return float(gains(1 + (scores > own[:, None]).sum(axis=1), CUTOFF).sum())
