"""The share of the levels that are right before the first wrong one."""

from __future__ import annotations

import numpy as np

from sidtune.reinforcement.rewards.base import Floats, Groups, Shop


def prefix(groups: Groups, shop: Shop) -> Floats:
    """Tokens that an answer shares with the target's start, divided by the target's length."""
    tokens, targets = shop.paths.tokens, groups.targets
    right = (tokens[groups.sids] == tokens[targets][:, None]) & (tokens[targets] >= 0)[:, None]
    shared: Floats = np.cumprod(right, axis=2).sum(axis=2) / shop.paths.lengths[targets][:, None]
    return shared
