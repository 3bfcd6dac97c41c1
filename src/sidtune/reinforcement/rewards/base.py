"""What a reward is, and what it is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.reinforcement.paths import Paths

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """The answers to some prompts, one group for each.

    Args:
        sids: `(prompts, group)`, numbers of SIDs in the order of the search, -1 where there are no
            more.
        targets: `(prompts,)`, numbers of the SIDs that are right.
    """

    sids: NDArray[np.int64]
    targets: NDArray[np.int64]

    def with_targets(self) -> Groups:
        """The groups with the target in place of the last answer where it is missing."""
        sids = self.sids.copy()
        missing = np.flatnonzero(~self.hits.any(axis=1))
        last = self.there.sum(axis=1).clip(min=1) - 1
        sids[missing, last[missing]] = self.targets[missing]
        return Groups(sids, self.targets)

    @property
    def there(self) -> NDArray[np.bool_]:
        """Whether there is an answer, `(prompts, group)`."""
        return self.sids >= 0

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether an answer is right, `(prompts, group)`."""
        hits: NDArray[np.bool_] = self.sids == self.targets[:, None]
        return hits


@dataclass(frozen=True)
class Shop:
    """What rewards may know of the SIDs.

    Args:
        paths: their tokens.
        vectors: called once, by rewards that need it: vectors `(SIDs, d)` of length 1.
    """

    paths: Paths
    vectors: Callable[[], NDArray[np.float32]]


# Rewards of all answers, `(prompts, group)`; where there is no answer, any number.
Reward = Callable[[Groups, Shop], Floats]
