"""What every ranker hands to the metrics, a model or a baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranking:
    """Where the targets stand in one ranker's lists, and the lists.

    Args:
        sid_ranks: `(rows,)`, the place of the target's SID among SIDs, from 1; 0 where it is not in
            the list.
        item_ranks: `(rows,)`, the place of the target among items, likewise.
        items: `(rows, depth)`, catalogue positions, best first, padded with -1.
    """

    sid_ranks: NDArray[np.int64]
    item_ranks: NDArray[np.int64]
    items: NDArray[np.int64]
