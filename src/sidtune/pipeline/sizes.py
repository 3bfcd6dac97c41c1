"""Model and training by the number of training targets, as plain values.

The rules lie between the recipes that were tuned on validation rows, see docs/quality.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Size(NamedTuple):
    """The settings of shops with fewer than `below` training targets, and with at least
    `per_user` of them for a user, on average.
    """

    below: float
    per_user: int
    hidden: int
    dropout: float
    epochs: int
    batch_size: int
    learning_rate: float
    min_lr_ratio: float
    warmup: int
    weight_decay: float


# As in the table of docs/configuration.md.
SIZES = (
    Size(30_000, 0, 128, 0.2, 24, 32, 2e-3, 0, 100, 1.0),
    Size(60_000, 0, 128, 0.1, 12, 32, 2e-3, 0, 200, 0.05),
    # Windows of long histories overlap: an epoch takes longer.
    Size(100_000, 50, 128, 0.1, 6, 32, 2e-3, 0.1, 200, 0.05),
    Size(100_000, 0, 128, 0.1, 12, 32, 2e-3, 0, 200, 0.05),
    Size(math.inf, 0, 256, 0.1, 10, 64, 1e-3, 0.1, 400, 0.05),
)


def size_for(targets: int, users: int) -> Size:
    """The settings for so many training targets of so many users."""
    return next(size for size in SIZES if targets < size.below and targets >= size.per_user * users)
