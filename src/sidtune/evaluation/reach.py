"""How the target of a row can be reached from what was counted on training rows."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.base.ragged import row_of
from sidtune.data.rows import Rows
from sidtune.opponents.baselines import Baselines

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
    history, row = rows.history, row_of(rows.history)
    last = history.values[history.offsets[1:] - 1]
    wanted = rows.target[row]

    def any_of_row(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.bincount(row[marked], minlength=len(history)) > 0
        return found

    told = (
        any_of_row(history.values == wanted),
        _has(counted.direct, last, rows.target),
        any_of_row(_has(counted.together, history.values, wanted)),
        counted.users[rows.target] > 0,
        np.ones(len(history), bool),
    )
    found: NDArray[np.int64] = np.argmax(np.stack(told), axis=0)
    return found


def _has(
    matrix: sp.csr_array, row: NDArray[np.integer], column: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Whether a matrix has an entry at each of these places, `(places,)`: a binary search for all
    of them at once, which needs memory for the places alone.
    """
    matrix.sort_indices()
    low = matrix.indptr[row].astype(np.int64)
    high = end = matrix.indptr[row + 1].astype(np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        # Where the search is over, `middle` may be behind the last entry.
        before = matrix.indices[np.minimum(middle, matrix.nnz - 1)] < column
        before &= low < high
        low, high = np.where(before, middle + 1, low), np.where(before, high, middle)
    found: NDArray[np.bool_] = low < end
    found[found] = matrix.indices[low[found]] == column[found]
    return found
