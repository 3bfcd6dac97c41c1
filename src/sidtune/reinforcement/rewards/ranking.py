"""Wrong answers of a group with the right one pay by their rank."""

from __future__ import annotations

import numpy as np

from sidtune.reinforcement.rewards.base import Floats, Groups, Shop


def ranking(groups: Groups, shop: Shop) -> Floats:
    """The penalty of a wrong answer at rank r (from 1): minus the share of 1 / log2(r + 1) in the
    sum over the ranks of the group; 0 for the right answer, and in groups without it.

    The source is MiniOneRec's ranking reward (Kong et al., 2025, “MiniOneRec”), which discounts as
    NDCG does.
    """
    discounts = 1 / np.log2(np.arange(2, groups.sids.shape[1] + 2))
    weights = np.where(groups.there, discounts, 0.0)
    penalties = -weights / weights.sum(axis=1, keepdims=True).clip(min=discounts[-1])
    pays = groups.hits.any(axis=1, keepdims=True) & ~groups.hits
    return np.where(pays, penalties, 0.0)
