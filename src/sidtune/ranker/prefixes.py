"""Prefixes of SIDs as numbers, and how much of a row's weight lies under a candidate's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.ranker.pairs import Floats, Pairs


def prefix_numbers(sids: Sequence[tuple[str, ...]], depth: int) -> NDArray[np.int32]:
    """The number of each item's first token, first two tokens and so on, `(items, depth)`, from 0
    at each depth; of a SID that is shorter, the whole.
    """
    numbers = np.empty((len(sids), depth), np.int32)
    for level in range(depth):
        seen: dict[tuple[str, ...], int] = {}
        numbers[:, level] = [seen.setdefault(sid[: level + 1], len(seen)) for sid in sids]
    return numbers


def prefix_mass(weights: sp.csr_array, numbers: NDArray[np.int32], pairs: Pairs) -> Floats:
    """The sum of a row's weights over items that share the candidate's prefix, `(pairs, depth)`.

    Args:
        weights: `(rows, items)`.
        numbers: of `prefix_numbers`.
    """
    items = np.arange(len(numbers))
    found = np.empty((len(pairs), numbers.shape[1]), np.float32)
    for level, prefix in enumerate(numbers.T):
        ones = np.ones(len(items), np.float32)
        gather = sp.csr_array((ones, (items, prefix)), shape=(len(items), int(prefix.max()) + 1))
        mass = (weights @ gather).tocsr()
        sought = Pairs(pairs.row, prefix[pairs.item].astype(np.int64), pairs.rows, mass.shape[1])
        found[:, level] = sought.look_up(mass)
    return found
