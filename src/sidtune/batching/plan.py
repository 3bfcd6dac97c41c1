"""The assignment of examples to steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Examples of one history kept together with `group_by: user`. Measured in docs/performance.md: four
# share nearly as many tokens as all of them would, and a step still has many users.
PIECE = 4
NOWHERE = -2


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of examples, a function of seed and epoch alone.

    Args:
        histories: key of each example's history and of how it is written, `(examples,)`; negative
            for none.
        task_sizes: examples of each task, in corpus order.
        weights: passes over each task's examples in one epoch.
        batch_size: examples per step, over all processes; an epoch's last step may have fewer.
        group_by: `example` shuffles single examples; `user` shuffles groups of a few of a user's
            examples, whose prompts share a prefix.
        seed: of the shuffle.
        first: steps that earlier stages of the run take.
        repeats: consecutive steps that have the same examples.
    """

    histories: NDArray[np.int64]
    task_sizes: Sequence[int]
    weights: Sequence[float]
    batch_size: int
    group_by: Literal["example", "user"]
    seed: int
    first: int = 0
    repeats: int = 1

    @property
    def examples_per_epoch(self) -> int:
        """Number of examples, the same in every epoch."""
        return sum(
            _share(size, weight) for size, weight in zip(self.task_sizes, self.weights, strict=True)
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer updates of one epoch."""
        return self.repeats * math.ceil(self.examples_per_epoch / self.batch_size)

    def step(self, number: int) -> NDArray[np.int64]:
        """The examples of a step, counted from 0 over all epochs of the stage, `(at most
        batch_size,)`.
        """
        epoch, index = divmod(self.first + number, self.steps_per_epoch)
        start = index // self.repeats * self.batch_size
        return _epoch(self, epoch)[start : start + self.batch_size]


@lru_cache(maxsize=2)
def _epoch(plan: Plan, epoch: int) -> NDArray[np.int64]:
    """The examples of an epoch in order, `(examples per epoch,)`."""
    random = np.random.default_rng([plan.seed, epoch])
    examples, places, passes = _drawn(plan, random)
    if plan.group_by == "user":
        return examples[_in_pieces(plan.histories[examples], places, passes, random)]
    return random.permutation(examples)


def _drawn(
    plan: Plan, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The examples of an epoch, task after task, with the position of each in its task and its
    pass; `(examples per epoch,)` each.

    Weight 2.5 takes all examples of a task twice, and a random half of them a third time.
    """
    drawn, start = [], 0
    for size, weight in zip(plan.task_sizes, plan.weights, strict=True):
        whole = _share(size, weight) // size if size else 0
        rest = random.permutation(size)[: _share(size, weight) - whole * size]
        places = np.concatenate([np.tile(np.arange(size), whole), rest])
        drawn.append(np.stack([start + places, places, np.arange(len(places)) // max(1, size)]))
        start += size
    examples, places, passes = np.concatenate(drawn, axis=1).astype(np.int64)
    return examples, places, passes


def _in_pieces(
    histories: NDArray[np.int64],
    places: NDArray[np.int64],
    passes: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """A shuffled order, `(n,)`, that keeps up to `PIECE` examples of one history and pass together;
    those without a history are shuffled singly.

    Rows of a history are consecutive in the file, so neighbours by position share the most tokens.
    """
    order = np.lexsort((places, histories, passes))
    history, passed = histories[order], passes[order]
    opens = (
        (np.diff(history, prepend=NOWHERE) != 0)
        | (np.diff(passed, prepend=NOWHERE) != 0)
        | (history < 0)
    )
    number = np.arange(len(order))
    in_history = number - np.maximum.accumulate(np.where(opens, number, 0))
    piece = np.cumsum(opens | (in_history % PIECE == 0)) - 1
    shuffled = random.permutation(piece[-1] + 1)
    return order[np.argsort(shuffled[piece], kind="stable")]


def _share(size: int, weight: float) -> int:
    return max(1, round(size * weight)) if size else 0
