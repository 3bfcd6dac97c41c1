"""How the target of a row can be reached from what was counted on training rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import row_of
from sidtune.data.rows import Rows
from sidtune.opponents.baselines import Baselines
from sidtune.ranker.pairs import Asked, Pairs
from sidtune.ranker.sources.transitions import history_weights, last_weights

REACH_NAMES = (
    "in the history",
    "follows last item",
    "co-occurs",
    "seen otherwise",
    "never seen",
)


def reached(rows: Rows, counted: Baselines) -> NDArray[np.int64]:
    """For each row the first of these that is true of its target, as an index into `REACH_NAMES`,
    `(rows,)`: it stands in the history; it came directly after the history's last item in training;
    a training user has it beside an item of the history; some training user has it; none has.

    Args:
        counted: on the training rows.
    """
    items = len(counted.users)
    asked = Asked(rows.history, items)
    pairs = Pairs(np.arange(len(asked)), rows.target.astype(np.int64), len(asked), items)
    owned = np.unique(row_of(rows.history) * items + rows.history.values)
    told = (
        pairs.find(owned) >= 0,
        pairs.look_up((last_weights(asked) @ counted.direct).tocsr()) > 0,
        pairs.look_up((history_weights(rows.history, items, 1.0) @ counted.together).tocsr()) > 0,
        counted.users[rows.target] > 0,
        np.ones(len(asked), bool),
    )
    found: NDArray[np.int64] = np.argmax(np.stack(told), axis=0)
    return found
