"""How many training users an item has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, repeat
from sidtune.ranker.pairs import Asked, Floats, Pairs
from sidtune.ranker.sources.base import Known, Source, Tensors

CANDIDATES = 10


@dataclass(frozen=True)
class Popularity(Source):
    """Training users of the candidate.

    In data that was reduced to its k-core, an item with fewer than k training users must occur in
    the held-out events. A ranker finds that out, so figures are shown without this source too.

    Args:
        users: `(items,)`.
    """

    users: NDArray[np.int64]

    columns: ClassVar = {"training_users": "number of its training users"}
    mixes: ClassVar = True

    @classmethod
    def fit(cls, known: Known) -> Popularity:
        """The counts."""
        return cls(known.users)

    @classmethod
    def load(cls, tensors: Tensors) -> Popularity:
        """From what `tensors` gave."""
        return cls(tensors["users"])

    def tensors(self) -> Tensors:
        """The counts."""
        return {"users": self.users}

    def candidates(self, asked: Asked) -> Ragged:
        """The most popular items that may be listed, the same for every row."""
        order = self._order
        listed = order if asked.allowed is None else order[asked.allowed[order]]
        return repeat(listed[:CANDIDATES].tolist(), len(asked))

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Items, the most popular first."""
        return np.argsort(-self.users, kind="stable")

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        return self.users[pairs.item, None].astype(np.float32)

    @staticmethod
    def share(features: Floats) -> Floats:
        """The number of users."""
        return features[:, 0]
