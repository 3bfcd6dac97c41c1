"""How alike the texts of an answer's items and of the target's are."""

from __future__ import annotations

import numpy as np

from sidtune.reinforcement.rewards.base import Floats, Groups, Shop


def semantic(groups: Groups, shop: Shop) -> Floats:
    """The cosine of the vectors of answer and target; 1 for the target itself."""
    vectors = shop.vectors().astype(np.float64)
    cosines = np.einsum("pgd,pd->pg", vectors[groups.sids], vectors[groups.targets])
    return np.where(groups.hits, 1.0, cosines)
