"""Vectors of items: of their texts, and of what their users also have. Items that are near those of
a history are candidates.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged, row_of
from sidtune.base.terminal import warn
from sidtune.data.rows import Rows
from sidtune.ranker.pairs import Asked, Floats, Pairs, highest
from sidtune.ranker.sources.base import Known, Source, Tensors
from sidtune.ranker.sources.transitions import history_weights
from sidtune.ranker.tuning import best_setting
from sidtune.sids.kmeans import chunks
from sidtune.sids.vectors.co_occurrence import behaviour
from sidtune.sids.vectors.source import unit

CANDIDATES = 50
# The latest items that the nearest one is looked for among.
LATEST = 20
DECAYS = (0.1, 0.3, 0.5, 0.7, 0.9)
USUAL_DECAY = 0.5
# Of the softmax that makes shares of cosines.
TEMPERATURE = 0.1
DIMENSIONS, SEED = 64, 0
PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Neighbours:
    """Items by their cosine to the weighted mean of a history's vectors.

    Args:
        vectors: `(items, d)`, rows of length 1, or 0 for items of which nothing is known.
        decay: factor on the weight of a history's item for every item after it.
    """

    vectors: Floats
    decay: float

    @classmethod
    def tuned(cls, vectors: Floats, valid: Rows | None) -> Neighbours:
        """With the decay that has the best item-level NDCG@10 on validation rows."""
        if valid is None or not len(valid.target):
            return cls(vectors, USUAL_DECAY)

        def scores(history: Ragged, shown: NDArray[np.integer]) -> list[Floats]:
            # One product for all decays reads the vectors once.
            means = np.concatenate([one.means(history) for one in tried])
            return np.split(means @ vectors[shown].T, len(tried))

        tried = [cls(vectors, decay) for decay in DECAYS]
        return tried[best_setting(valid, len(vectors), scores)]

    def means(self, history: Ragged, decay: float | None = None) -> Floats:
        """The weighted mean of each history's vectors, length 1, `(rows, d)`."""
        weights = history_weights(history, len(self.vectors), decay or self.decay)
        return unit(weights @ self.vectors)

    def scores(self, history: Ragged) -> Floats:
        """Cosines `(rows, items)`."""
        cosines: Floats = self.means(history) @ self.vectors.T
        return cosines


@dataclass(frozen=True)
class _Vectors(Source):
    """Cosines of a candidate to the weighted mean of the history, to the plain mean, to the latest
    item, and to whichever of the latest items is nearest.
    """

    near: Neighbours

    @classmethod
    @abstractmethod
    def vectors(cls, known: Known) -> Floats | None:
        """The items' vectors; None where there are none."""

    @classmethod
    def fit(cls, known: Known) -> Self | None:
        """Choose the decay; None without vectors."""
        vectors = cls.vectors(known)
        return None if vectors is None else cls(Neighbours.tuned(vectors, known.valid))

    def recount(self, known: Known) -> Self | None:
        """Make the vectors again."""
        vectors = self.vectors(known)
        return None if vectors is None else type(self)(Neighbours(vectors, self.near.decay))

    @classmethod
    def load(cls, tensors: Tensors) -> Self:
        """From what `tensors` gave."""
        return cls(Neighbours(tensors["vectors"], float(tensors["decay"][0])))

    def tensors(self) -> Tensors:
        """The vectors and the decay."""
        return {"vectors": self.near.vectors, "decay": np.array([self.near.decay])}

    def candidates(self, asked: Asked) -> Ragged:
        """The nearest items to the weighted mean."""
        scores = self.near.scores(asked.history)
        if asked.allowed is not None:
            scores[:, ~asked.allowed] = -np.inf
        if asked.excluded is not None:
            scores[row_of(asked.excluded), asked.excluded.values] = -np.inf
        most = min(CANDIDATES, asked.items)
        return Ragged.from_lengths(highest(scores, most).ravel(), np.full(len(asked), most))

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        vectors, latest = self.near.vectors, asked.history.latest(LATEST)
        means = (self.near.means(asked.history), self.near.means(asked.history, 1.0))
        found = np.empty((len(pairs), 4), np.float32)
        for block in chunks(len(pairs), 1, PAIRS_AT_ONCE):
            row, candidate = pairs.row[block], vectors[pairs.item[block]]
            for column, mean in enumerate(means):
                found[block, column] = _cosines(candidate, mean[row])
            found[block, 2] = _cosines(candidate, vectors[asked.last[row]])
            found[block, 3] = found[block, 2]
            for back in range(1, int(latest.lengths.max(initial=0))):
                there = np.flatnonzero(latest.lengths[row] > back)
                item = latest.values[latest.offsets[1:][row[there]] - 1 - back]
                nearer = _cosines(candidate[there], vectors[item])
                place = block.start + there
                found[place, 3] = np.maximum(found[place, 3], nearer)
        return found

    @staticmethod
    def share(features: Floats) -> Floats:
        """The exponential of the cosine to the weighted mean, over a temperature."""
        shares: Floats = np.exp((features[:, 0] - 1) / np.float32(TEMPERATURE))
        return shares


class Text(_Vectors):
    """Vectors of texts: those that `sidtune sids` makes."""

    columns = {
        "text": "text: likeness to the history, latest items weighing most",
        "text_unweighted": "text: likeness to the history, all items alike",
        "text_last": "text: likeness to the latest item",
        "text_nearest": "text: likeness to the nearest of the latest items",
    }
    mixes = True

    @classmethod
    def vectors(cls, known: Known) -> Floats | None:
        """Those that are given."""
        return known.texts


class Behaviour(_Vectors):
    """Vectors of co-occurrence in training histories."""

    columns = {
        "behaviour": "behaviour: likeness to the history, latest items weighing most",
        "behaviour_unweighted": "behaviour: likeness to the history, all items alike",
        "behaviour_last": "behaviour: likeness to the latest item",
        "behaviour_nearest": "behaviour: likeness to the nearest of the latest items",
    }

    @classmethod
    def vectors(cls, known: Known) -> Floats | None:
        """Of the training rows; None where no row pairs two items."""
        try:
            vectors = behaviour(known.train, len(known.catalogue.ids), DIMENSIONS, SEED)
        except UserError as error:
            warn(f"the ranker has no vectors of behaviour: {error.message}. {error.hint}")
            return None
        if vectors is None:
            warn("no training row pairs two items, so the ranker has no vectors of behaviour")
        return vectors


def _cosines(first: Floats, second: Floats) -> Floats:
    products: Floats = np.einsum("ij,ij->i", first, second)
    return products
