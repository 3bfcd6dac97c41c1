"""How much of a row's weight lies under the prefixes of a candidate's SID."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.ranker.pairs import Floats, Pairs


def prefix_mass(weights: sp.csr_array, numbers: NDArray[np.int32], pairs: Pairs) -> Floats:
    """The sum of a row's weights over items that share the candidate's prefix, `(pairs, depth)`.

    Args:
        weights: `(rows, items)`.
        numbers: of `prefix_numbers`, `(items, depth)`.
    """
    found = np.empty((len(pairs), numbers.shape[1]), np.float32)
    for level, prefix in enumerate(numbers.T):
        shape = (pairs.rows, int(prefix.max()) + 1)
        parts = (weights.data, prefix[weights.indices], weights.indptr)
        mass = sp.csr_array(parts, shape=shape, copy=True)
        mass.sum_duplicates()
        sought = Pairs(pairs.row, prefix[pairs.item].astype(np.int64), pairs.rows, shape[1])
        found[:, level] = sought.look_up(mass)
    return found
