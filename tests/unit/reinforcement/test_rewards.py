"""Rewards and advantages, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sidtune.base.ragged import Ragged
from sidtune.config.rl import RewardName
from sidtune.decoding.trie import build_trie
from sidtune.reinforcement.grpo import EPSILON, advantages, teaches
from sidtune.reinforcement.paths import paths_of
from sidtune.reinforcement.rewards import REWARDS, mixed
from sidtune.reinforcement.rewards.base import Groups, Shop

CLOSING = 1
# Numbers 0 to 3.
SIDS = [[5, 7, 9], [5, 7, 10], [5, 8, 9], [6, 7, 9]]
VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
PATHS = paths_of(build_trie(Ragged.from_lists(SIDS), CLOSING))
SHOP = Shop(PATHS, lambda: VECTORS)
# The target is 0 in both: third of the first group, missing in the second, which is shorter.
GROUPS = Groups(np.array([[3, 1, 0, 2], [1, 2, -1, -1]]), np.array([0, 0]))
DISCOUNTS = [1, 1 / math.log2(3), 1 / 2, 1 / math.log2(5)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rule", [[0, 0, 1, 0], [0, 0]]),
        (
            "ranking",
            [
                [-DISCOUNTS[0], -DISCOUNTS[1], 0, -DISCOUNTS[3]] / np.sum(DISCOUNTS),
                [0, 0],
            ],
        ),
        ("prefix", [[0, 2 / 3, 1, 1 / 3], [2 / 3, 1 / 3]]),
        ("semantic", [[-1, 0, 1, 0.6], [0, 0.6]]),
    ],
)
def test_each_reward_by_hand(name: RewardName, expected: list[list[float]]) -> None:
    found = REWARDS[name](GROUPS, SHOP)
    assert found[0] == pytest.approx(expected[0])
    assert found[1, :2] == pytest.approx(expected[1])


def test_every_reward_is_here() -> None:
    assert set(REWARDS) == {"rule", "ranking", "prefix", "semantic"}


def test_rewards_are_mixed_by_their_weights() -> None:
    """Where there is no answer the reward is 0, whatever a reward says there."""
    found = mixed({"rule": 2.0, "prefix": 0.5, "semantic": 0.0}, GROUPS, SHOP)
    assert found[0] == pytest.approx([0, 1 / 3, 2.5, 1 / 6])
    assert found[1] == pytest.approx([1 / 3, 1 / 6, 0, 0])


def test_a_target_that_begins_another_sid_counts_its_closing_token_too() -> None:
    paths = paths_of(build_trie(Ragged.from_lists([[5], [5, 7], [6]]), CLOSING))
    assert paths.tokens.tolist() == [[5, CLOSING], [5, 7], [6, -1]]
    assert paths.lengths.tolist() == [2, 2, 1]
    groups = Groups(np.array([[0, 1, 2]]), np.array([0]))
    assert REWARDS["prefix"](groups, Shop(paths, lambda: VECTORS))[0].tolist() == [1, 0.5, 0]


def test_advantages_by_hand() -> None:
    """One hit in four: mean 1/4, deviation of a sample 1/2."""
    found = advantages(np.array([[1.0, 0, 0, 0]]), np.ones((1, 4), bool))
    assert found[0] == pytest.approx(np.array([0.75, -0.25, -0.25, -0.25]) / (0.5 + EPSILON))


@given(st.lists(st.lists(st.floats(-3, 3), min_size=2, max_size=6), min_size=1, max_size=4))
def test_advantages_are_each_groups_own(rewards: list[list[float]]) -> None:
    """Groups of different sizes, against torch one group at a time."""
    width = max(map(len, rewards))
    there = np.array([[at < len(group) for at in range(width)] for group in rewards])
    table = np.array([group + [9.0] * (width - len(group)) for group in rewards])
    found = advantages(table, there)
    for row, group in enumerate(rewards):
        values = torch.tensor(group, dtype=torch.float64)
        expected = (values - values.mean()) / (values.std() + EPSILON)
        assert found[row, : len(group)] == pytest.approx(expected.tolist(), abs=1e-9)
        assert not found[row, len(group) :].any()


def test_groups_that_are_all_alike_teach_nothing() -> None:
    rewards = np.array([[1.0, 1, 0], [1, 1, 1], [0, 0, 1]])
    there = np.array([[True, True, True], [True, True, True], [True, True, False]])
    assert teaches(rewards, there).tolist() == [True, False, False]
