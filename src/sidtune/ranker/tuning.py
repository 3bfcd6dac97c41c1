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
# Targets are ranked among so many items at most, drawn by seed.
MOST_ITEMS = 100_000
# Rows that are tried: so many, and fewer where there are many items.
MOST_ROWS, SCORES, SEED = 5_000, 100_000_000, 0


def tuning_rows(valid: Rows, most: int = MOST_ROWS) -> Rows:
    """Validation rows that settings are tried on, at most so many, drawn by a fixed seed."""
    return valid.take(drawn(len(valid.target), most, SEED))


def best_setting(
    valid: Rows,
    items: int,
    scores: Callable[[Ragged, NDArray[np.integer]], Iterable[NDArray[np.floating]]],
) -> int:
    """The place of the setting whose scores have the best item-level NDCG@10; of equal ones the
    first.

    Args:
        valid: validation rows, at least one; some are drawn by a fixed seed where there are many.
        items: number of items.
        scores: for some histories and some items, the scores `(rows, these items)` of each setting
            in turn.
    """
    shown = drawn(items, MOST_ITEMS, SEED)
    rows = tuning_rows(valid, min(MOST_ROWS, SCORES // len(shown)))
    shown = np.union1d(shown, rows.target)
    places = np.searchsorted(shown, rows.target)
    gained, done = np.zeros(0), 0
    for part in Asked(rows.history, len(shown)).chunks():
        target = places[done : done + len(part)]
        each = [_gain(found, target) for found in scores(part.history, shown)]
        gained = np.array(each) + (gained if len(gained) else 0)
        done += len(part)
    return int(gained.argmax())


def _gain(scores: NDArray[np.floating], target: NDArray[np.integer]) -> float:
    """The sum of NDCG@10 over the rows; equal scores do not push a target down."""
    own = scores[np.arange(len(target)), target]
    return float(gains(1 + (scores > own[:, None]).sum(axis=1), CUTOFF).sum())
