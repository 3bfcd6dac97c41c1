"""How often users have an item again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sidtune.data.rows import Rows
from sidtune.metrics.metrics import Estimate, proportion

# A share of targets that is next to nothing.
RARE = 0.01


def in_history(rows: Rows) -> NDArray[np.bool_]:
    """Whether each row's target stands in its history, `(rows,)`."""
    owned = np.repeat(rows.target, rows.history.lengths) == rows.history.values
    found: NDArray[np.bool_] = np.logical_or.reduceat(owned, rows.history.offsets[:-1])
    return found


def repeating(rows: Rows) -> Estimate | None:
    """The share of rows whose target stands in their history; None without rows."""
    return proportion(in_history(rows).astype(np.float64)) if len(rows.target) else None


def hardly_any(share: Estimate | None) -> bool:
    """Whether fewer than `RARE` repeat by the upper end of the interval, which takes some 400
    rows.
    """
    return share is not None and share.high <= RARE
