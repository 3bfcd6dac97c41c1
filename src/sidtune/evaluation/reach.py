"""How the target of a row can be reached from what was counted on training rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import row_of
from sidtune.data.popularity import popularity
from sidtune.data.rows import Rows
from sidtune.ranker.pairs import Asked, Pairs
from sidtune.ranker.sources.co_occurrence import conditional
from sidtune.ranker.sources.transitions import (
    Transitions,
    TransitionSettings,
    history_weights,
    last_weights,
)

REACH_NAMES = (
    "in the history",
    "follows last item",
    "co-occurs",
    "seen otherwise",
    "never seen",
)


def reached(train: Rows, rows: Rows, items: int) -> NDArray[np.int64]:
    """For each row the first of these that is true of its target, as an index into `REACH_NAMES`,
    `(rows,)`: it stands in the history; it came directly after the history's last item in training;
    a training user has it beside an item of the history; some training user has it; none has.
    """
    asked = Asked(rows.history, items)
    pairs = Pairs(np.arange(len(asked)), rows.target.astype(np.int64), len(asked), items)
    owned = np.unique(row_of(rows.history) * items + rows.history.values)
    direct = Transitions.count(train, items, TransitionSettings()).matrix
    together = conditional(train, items)
    told = (
        pairs.find(owned) >= 0,
        pairs.look_up((last_weights(asked) @ direct).tocsr()) > 0,
        pairs.look_up((history_weights(rows.history, items, 1.0) @ together).tocsr()) > 0,
        popularity(train, items)[rows.target] > 0,
        np.ones(len(asked), bool),
    )
    found: NDArray[np.int64] = np.argmax(np.stack(told), axis=0)
    return found
