"""Item popularity: the number of users of each item."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import row_of
from sidtune.data.rows import Rows

# A pair takes twice the memory of an item, and items of a history repeat in every later row of the
# user.
ROWS_AT_ONCE = 1 << 18
# Scores closer than this count as tied. It has room for a million ranks by popularity, which stay
# distinct in float64 when added to scores up to 4,096.
TIE_BREAK = 1e-6


def owned(rows: Rows, items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct pairs of user number, from 0, and item in a history or as a target, both
    `(pairs,)`.
    """
    users = rows.users.dictionary_encode().indices.to_numpy()
    pairs = [
        _pairs(rows, users, np.arange(start, min(start + ROWS_AT_ONCE, len(users))), items)
        for start in range(0, len(users), ROWS_AT_ONCE)
    ]
    user, item = np.divmod(_distinct(np.concatenate([np.zeros(0, np.int64), *pairs])), items)
    return user, item


def popularity(rows: Rows, items: int) -> NDArray[np.int64]:
    """Number of distinct users of each item, in a history or as a target, `(items,)`."""
    return np.bincount(owned(rows, items)[1], minlength=items)


def tie_break(popular: NDArray[np.integer]) -> NDArray[np.float64]:
    """A term in [0, `TIE_BREAK`) that decreases with the rank by popularity, then catalogue order,
    `(items,)`.
    """
    term = np.empty(len(popular))
    term[np.argsort(-popular, kind="stable")] = np.arange(len(popular))[::-1] * (
        TIE_BREAK / len(popular)
    )
    return term


def _pairs(
    rows: Rows, users: NDArray[np.int32], block: NDArray[np.int64], items: int
) -> NDArray[np.int64]:
    """Distinct pairs of user and item of some rows, each pair as one integer."""
    first, history = users[block].astype(np.int64) * items, rows.history.take(block)
    return _distinct(
        np.concatenate([first[row_of(history)] + history.values, first + rows.target[block]])
    )


def _distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct values, ascending; much faster than NumPy's hash table here."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=-1) > 0]
