"""How many training users an item has."""

from __future__ import annotations

from dataclasses import dataclass
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
        order = np.argsort(-self.users, kind="stable")
        listed = order if asked.allowed is None else order[asked.allowed[order]]
        return repeat(listed[:CANDIDATES].tolist(), len(asked))

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        return self.users[pairs.item, None].astype(np.float32)
