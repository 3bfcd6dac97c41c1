"""Which examples make which step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Steps of like length are formed inside windows of this many steps, so that an epoch stays shuffled at large.
WINDOW_STEPS = 50


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of examples, a function of seed and epoch alone.

    Args:
        lengths: tokens of each example of the corpus, `(examples,)`.
        users: key of the user each example is about, `(examples,)`; negative where it is about none.
        task_sizes: examples of each task, in corpus order.
        weights: passes over each task's examples in one epoch.
        batch_size: examples of a step, over all processes; an epoch's last step may hold fewer.
        order: `random`, or `length` for steps of like length.
        group_by: `example` shuffles examples; `user` shuffles users, whose examples of an epoch stand together.
        seed: of the shuffle.
    """

    lengths: NDArray[np.int64]
    users: NDArray[np.int64]
    task_sizes: Sequence[int]
    weights: Sequence[float]
    batch_size: int
    order: Literal["random", "length"]
    group_by: Literal["example", "user"]
    seed: int

    @property
    def examples_per_epoch(self) -> int:
        """The same in every epoch."""
        return sum(_share(size, weight) for size, weight in zip(self.task_sizes, self.weights, strict=True))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer updates of one epoch."""
        return math.ceil(self.examples_per_epoch / self.batch_size)

    def step(self, number: int) -> NDArray[np.int64]:
        """The examples of a step, counted from 0 over all epochs, `(at most batch_size,)`."""
        epoch, index = divmod(number, self.steps_per_epoch)
        start = index * self.batch_size
        return _epoch(self, epoch)[start : start + self.batch_size]


@lru_cache(maxsize=2)
def _epoch(plan: Plan, epoch: int) -> NDArray[np.int64]:
    """The examples of an epoch in order, `(examples per epoch,)`."""
    random = np.random.default_rng([plan.seed, epoch])
    drawn, start = [], 0
    for size, weight in zip(plan.task_sizes, plan.weights, strict=True):
        whole = _share(size, weight) // size if size else 0
        rest = random.permutation(size)[: _share(size, weight) - whole * size]
        drawn.append(start + np.concatenate([np.tile(np.arange(size), whole), rest]))
        start += size
    if plan.group_by == "user":
        return _by_user(plan, np.concatenate(drawn).astype(np.int64), random)
    examples = random.permutation(np.concatenate(drawn).astype(np.int64))
    return _by_length(plan, examples, random) if plan.order == "length" else examples


def _share(size: int, weight: float) -> int:
    return max(1, round(size * weight)) if size else 0


def _by_user(plan: Plan, examples: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Users in random order, each one's examples in corpus order, so that a cut between steps splits few tasks.

    An example about no user is a user of its own.
    """
    known, users = np.unique(plan.users[examples], return_inverse=True)
    alone = plan.users[examples] < 0
    users[alone] = len(known) + np.arange(alone.sum())
    shuffled = random.permutation(len(known) + int(alone.sum()))
    return examples[np.lexsort((examples, shuffled[users]))]


def _by_length(plan: Plan, examples: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Sort by length inside windows, then shuffle the steps; the uneven last step stays last."""
    window = WINDOW_STEPS * plan.batch_size
    windows = [examples[start : start + window] for start in range(0, len(examples), window)]
    ordered = np.concatenate([w[np.argsort(-plan.lengths[w], kind="stable")] for w in windows])
    full = len(ordered) // plan.batch_size * plan.batch_size
    steps = random.permutation(ordered[:full].reshape(-1, plan.batch_size), axis=0)
    return np.concatenate([steps.reshape(-1), ordered[full:]])
