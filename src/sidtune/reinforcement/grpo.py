"""Group-relative policy optimisation: advantages, and what is asked of each answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sidtune.reinforcement.paths import Paths
from sidtune.reinforcement.rewards.base import Floats, Groups
from sidtune.reinforcement.trees import Wanted

# Added to the standard deviation, as TRL does.
EPSILON = 1e-4


def advantages(rewards: Floats, there: NDArray[np.bool_]) -> Floats:
    """Rewards minus their group's mean, divided by the group's standard deviation, `(prompts,
    group)`; 0 where there is no answer.

    The source is GRPO (Shao et al., 2024, “DeepSeekMath”, section 4.1.2). The deviation is that of
    a sample, as in TRL.

    Args:
        rewards: `(prompts, group)`.
        there: `(prompts, group)`, whether there is an answer.
    """
    count = there.sum(axis=1, keepdims=True)
    mean = np.where(there, rewards, 0).sum(axis=1, keepdims=True) / count.clip(min=1)
    apart = np.where(there, rewards - mean, 0)
    deviation = np.sqrt((apart**2).sum(axis=1, keepdims=True) / (count - 1).clip(min=1))
    normalised: Floats = apart / (deviation + EPSILON)
    return normalised


def teaches(rewards: Floats, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a group's rewards differ, `(prompts,)`: the others have no gradient."""
    lowest = np.where(there, rewards, np.inf).min(axis=1)
    differ: NDArray[np.bool_] = np.where(there, rewards, -np.inf).max(axis=1) > lowest
    return differ


def wanted(groups: Groups, rewards: Floats, paths: Paths, beta: float, sft_weight: float) -> Wanted:
    """What GRPO asks of the answers, per token: the mean over a prompt's answers of the mean over
    an answer's tokens (DeepSeekMath, eq. 3).

    A group whose rewards are all alike asks for nothing, not even for its divergence, so that it
    costs no forward pass. With `sft_weight`, that times the mean log-probability of the target's
    tokens is added for every prompt.

    Args:
        beta: factor of the divergence from the reference.
    """
    there = groups.there & teaches(rewards, groups.there)[:, None]
    prompt, place = np.nonzero(there)
    sid = groups.sids[prompt, place]
    share = 1 / (groups.there.sum(axis=1)[prompt] * paths.lengths[sid])
    advantage = advantages(rewards, groups.there)[prompt, place] * share
    nothing = np.zeros(len(prompt))
    policy = Wanted(prompt, sid, advantage, beta * share, nothing)
    if not sft_weight:
        return policy
    likelihood = sft_weight / paths.lengths[groups.targets]
    zeros = np.zeros(len(likelihood))
    target = Wanted(np.arange(len(likelihood)), groups.targets, zeros, zeros, likelihood)
    return Wanted(
        *(
            np.concatenate([getattr(policy, name), getattr(target, name)])
            for name in ("prompt", "sid", "advantage", "kl", "likelihood")
        )
    )
