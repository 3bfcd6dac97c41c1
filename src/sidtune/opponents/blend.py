"""Item transitions and text neighbours as one ranking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged
from sidtune.data.rows import Rows
from sidtune.ranker.sources.transitions import Transitions
from sidtune.ranker.sources.vectors import Neighbours
from sidtune.ranker.tuning import best_setting

WEIGHTS = tuple(tenths / 10 for tenths in range(1, 10))
TEMPERATURES = (0.05, 0.1, 0.2)

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Blend:
    """A weighted mean of two distributions over the catalogue: transitions, and the softmax of the
    cosines of texts.

    Args:
        weight: of transitions; that of texts is the rest.
        temperature: of the softmax.
    """

    transitions: Transitions
    neighbours: Neighbours
    weight: float = 0.5
    temperature: float = 0.1

    @classmethod
    def tuned(cls, transitions: Transitions, neighbours: Neighbours, valid: Rows | None) -> Blend:
        """With the weight and temperature that have the best item-level NDCG@10 on validation
        rows.
        """
        if valid is None or not len(valid.target):
            return cls(transitions, neighbours)
        grid = list(product(TEMPERATURES, WEIGHTS))

        def scores(history: Ragged, shown: NDArray[np.integer]) -> Iterator[Scores]:
            follow = _followed(transitions, history)[:, shown].toarray()
            cosines = neighbours.means(history) @ neighbours.vectors[shown].T
            for temperature in TEMPERATURES:
                # As if all items were shown.
                near = _softmax(cosines, temperature) * (len(shown) / len(neighbours.vectors))
                for weight in WEIGHTS:
                    yield weight * follow + (1 - weight) * near

        temperature, weight = grid[best_setting(valid, len(neighbours.vectors), scores)]
        return cls(transitions, neighbours, weight, temperature)

    def scores(self, history: Ragged) -> Scores:
        """The mean, `(rows, items)`."""
        near = _softmax(self.neighbours.scores(history), self.temperature)
        mixed: Scores = self.weight * _followed(self.transitions, history).toarray()
        return mixed + (1 - self.weight) * near


def _followed(transitions: Transitions, history: Ragged) -> sp.csr_array:
    """Scores of transitions, those of a row scaled to sum to 1, `(rows, items)`."""
    scores = transitions.scores(history)
    return (sp.diags_array(1 / np.maximum(scores.sum(axis=1), 1e-12)) @ scores).tocsr()


def _softmax(cosines: NDArray[np.float32], temperature: float) -> Scores:
    raised = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / np.float32(temperature))
    scaled: Scores = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float64)
    return scaled
