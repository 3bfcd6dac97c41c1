"""Co-occurrence: which items the users of an item also have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from sidtune.base.ragged import Ragged
from sidtune.data.popularity import owned
from sidtune.data.rows import Rows
from sidtune.ranker.pairs import Asked, Floats, Pairs
from sidtune.ranker.sources.base import Known, Source, Tensors
from sidtune.ranker.sources.transitions import history_weights, last_weights
from sidtune.ranker.sparse import cut_rows, matrix_of, tensors_of

# Factor on the weight of a history's item for every item that came after it.
DECAY = 0.5
NEIGHBOURS, CANDIDATES = 200, 30


def conditional(train: Rows, items: int) -> sp.csr_array:
    """P(j | i), `(items, items)`: of the users of item i, the share that also has item j (Deshpande
    & Karypis, 2004).

    P(i | i) is 1, also for an item without users: users repeat items, and a baseline that leaves
    these out is weak.
    """
    user, item = owned(train, items)
    # An item without users gets one who has nothing else.
    absent = np.setdiff1d(np.arange(items), item)
    users = int(user.max()) + 1
    user = np.concatenate([user, users + np.arange(len(absent))])
    item = np.concatenate([item, absent])
    has = sp.csr_array((np.ones(len(user)), (user, item)), shape=(users + len(absent), items))
    shares = (has.T @ has).tocsr()
    # In place: with a million items the matrix is large.
    shares.data /= np.repeat(np.bincount(item).astype(np.int32), np.diff(shares.indptr))
    return shares


@dataclass(frozen=True)
class CoOccurrence(Source):
    """The sum of P(j | i) over a history's items i: each with half the weight of the next one, all
    alike, and of the latest item alone.
    """

    matrix: sp.csr_array

    columns: ClassVar = {
        "co_occurrence": "co-occurrence with the history, latest items weighing most",
        "co_occurrence_unweighted": "co-occurrence with the history, all items alike",
        "co_occurrence_last": "co-occurrence with the latest item",
    }
    mixes: ClassVar = True

    @classmethod
    def fit(cls, known: Known) -> CoOccurrence:
        """Count."""
        return cls(cut_rows(conditional(known.train, len(known.catalogue.ids)), NEIGHBOURS))

    @classmethod
    def load(cls, tensors: Tensors) -> CoOccurrence:
        """From what `tensors` gave."""
        return cls(matrix_of("shares", tensors))

    def tensors(self) -> Tensors:
        """The matrix."""
        return tensors_of("shares", self.matrix)

    def candidates(self, asked: Asked) -> Ragged:
        """The items with the highest sums."""
        return asked.best(self._sums(asked, DECAY), CANDIDATES)

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        matrices = (
            self._sums(asked, DECAY),
            self._sums(asked, 1.0),
            (last_weights(asked) @ self.matrix).tocsr(),
        )
        return np.stack([pairs.look_up(matrix) for matrix in matrices], axis=1).astype(np.float32)

    @staticmethod
    def share(features: Floats) -> Floats:
        """The sum of P(j | i)."""
        return features[:, 0]

    def _sums(self, asked: Asked, decay: float) -> sp.csr_array:
        return (history_weights(asked.history, asked.items, decay) @ self.matrix).tocsr()
