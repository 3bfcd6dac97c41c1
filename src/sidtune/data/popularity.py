"""Who has what: the users of each item."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sidtune.data.rows import Rows
from sidtune.ragged import row_of


def owned(rows: Rows, items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users, numbered from 0, and items they have in a history or as a target; each pair once, both `(pairs,)`."""
    users = rows.users.dictionary_encode().indices.to_numpy().astype(np.int64)
    pairs = np.concatenate([users[row_of(rows.history)] * items + rows.history.values, users * items + rows.target])
    user, item = np.divmod(np.unique(pairs), items)
    return user, item


def popularity(rows: Rows, items: int) -> NDArray[np.int64]:
    """Number of distinct users that have each item, in a history or as a target, `(items,)`."""
    return np.bincount(owned(rows, items)[1], minlength=items)
