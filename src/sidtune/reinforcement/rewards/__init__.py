"""Rewards of answers; `REWARDS` is the only registry."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sidtune.config.rl import RewardName
from sidtune.reinforcement.rewards.base import Floats, Groups, Reward, Shop
from sidtune.reinforcement.rewards.prefix import prefix
from sidtune.reinforcement.rewards.ranking import ranking
from sidtune.reinforcement.rewards.rule import rule
from sidtune.reinforcement.rewards.semantic import semantic

REWARDS: dict[RewardName, Reward] = {
    "rule": rule,
    "ranking": ranking,
    "prefix": prefix,
    "semantic": semantic,
}


def mixed(weights: Mapping[RewardName, float], groups: Groups, shop: Shop) -> Floats:
    """The weighted sum of rewards, `(prompts, group)`; 0 where there is no answer."""
    total = sum(weight * REWARDS[name](groups, shop) for name, weight in weights.items() if weight)
    return np.where(groups.there, total, 0.0)
