"""Item transitions: counts of which items followed which in training sequences."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, age_of, concatenate, place_of
from sidtune.data.popularity import popularity, tie_break
from sidtune.data.rows import Rows
from sidtune.data.sequences import whole
from sidtune.metrics.metrics import gains
from sidtune.ranker.pairs import Asked, Floats, Pairs
from sidtune.ranker.sources.base import Known, Source, Tensors
from sidtune.ranker.sparse import cut_rows, entry_rows, matrix_of, tensors_of
from sidtune.ranker.tuning import CUTOFF, tuning_rows

# Successors of an item that are kept, and those that a second hop starts from.
SUCCESSORS, SECOND_HOP = 100, 20
CANDIDATES, FAR_CANDIDATES = 50, 10


@dataclass(frozen=True)
class TransitionSettings:
    """How transitions are counted and used.

    Args:
        window: an item counts as a successor up to this many places later.
        gap_weight: factor on the count of a pair for every item that stands between the two.
        decay: factor on the weight of a history's item for every item after it.
    """

    window: int = 1
    gap_weight: float = 1.0
    decay: float = 0.3


WINDOWS = (1, 2, 4)
COUNTS = ((1, 1.0), (2, 0.5), (2, 1.0), (4, 0.5), (4, 1.0))
DECAYS = (0.1, 0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Transitions:
    """First-order Markov chain over items, as in sequential rules (Ludewig and Jannach, 2018).

    Args:
        matrix: P(j | i), `(items, items)`: the share of j in the total weight of the items that
            followed i.
        settings: of counting, and of weighting histories.
    """

    matrix: sp.csr_array
    settings: TransitionSettings

    @classmethod
    def count(cls, train: Rows, items: int, settings: TransitionSettings) -> Transitions:
        """Count pairs of training sequences; an item that nothing followed has an empty row."""
        sequences = whole(train)
        lists, context = sequences.items, sequences.context
        # A later sequence of the same user starts with items whose pairs are already counted.
        place, known = place_of(lists), np.repeat(context, lists.lengths)
        counted = sp.csr_array((items, items))
        for gap in range(1, settings.window + 1):
            later = np.flatnonzero(place >= np.maximum(gap, known))
            pairs = (lists.values[later - gap], lists.values[later])
            weights = np.full(len(later), settings.gap_weight ** (gap - 1))
            counted += sp.csr_array((weights, pairs), shape=(items, items))
        totals = np.asarray(counted.sum(axis=1)).ravel()
        shares = sp.diags_array(np.divide(1, totals, out=np.zeros(items), where=totals > 0))
        return cls((shares @ counted).tocsr(), settings)

    def scores(self, history: Ragged) -> sp.csr_array:
        """Sum of P(j | i) over a history's items i, weighted by `decay` to the power of their age,
        `(rows, items)`.
        """
        weights = history_weights(history, self.matrix.shape[0], self.settings.decay)
        return (weights @ self.matrix).tocsr()


def history_weights(history: Ragged, items: int, decay: float) -> sp.csr_array:
    """`decay` to the power of the number of later items, `(rows, items)`; repeats add up.

    In single precision, as ranker files are: a product of two precisions copies the larger matrix.
    """
    weights = (decay ** age_of(history)).astype(np.float32)
    shape = (len(history), items)
    return sp.csr_array((weights, history.values, history.offsets), shape=shape)


def last_weights(asked: Asked) -> sp.csr_array:
    """1 for the latest item of each history, `(rows, items)`."""
    rows = np.arange(len(asked) + 1)
    ones = np.ones(len(asked), np.float32)
    return sp.csr_array((ones, asked.last, rows), shape=(len(asked), asked.items))


def tuned_transitions(
    train: Rows,
    valid: Rows | None,
    items: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    exclude_history: bool = False,
) -> Transitions:
    """Transitions with those of `COUNTS` and `DECAYS` that have the best item-level NDCG@10 on at
    most 5,000 validation rows; without validation rows, with the default settings.

    A target without a score counts as a miss here, though in evaluation its popularity might list
    it.

    Args:
        train, valid: rows.
        items: number of items.
        allowed: as in `Asked`.
        exclude_history: list no item of a row's own history.
    """
    if valid is None or not len(valid.target):
        return Transitions.count(train, items, TransitionSettings())
    rows = tuning_rows(valid)
    asked = Asked(rows.history, items, None, allowed, rows.history if exclude_history else None)
    # One after the other: with a million items a matrix is large.
    tried = (
        replace(counted, settings=replace(counted.settings, decay=decay))
        for count in COUNTS
        for counted in (Transitions.count(train, items, TransitionSettings(*count)),)
        for decay in DECAYS
    )
    ties = tie_break(popularity(train, items))
    return max(tried, key=lambda one: _ndcg(one.scores(rows.history), asked, rows.target, ties))


def _ndcg(
    scores: sp.csr_array,
    asked: Asked,
    target: NDArray[np.integer],
    ties: NDArray[np.float64],
) -> float:
    """Mean NDCG@10 of the targets among the items with a score; `ties`, `(items,)`, is added."""
    row, item = entry_rows(scores), scores.indices
    listed = asked.listed(row, item)
    row, item, value = row[listed], item[listed], scores.data[listed] + ties[item[listed]]
    own = np.zeros(len(asked))
    found = item == target[row]
    own[row[found]] = value[found]
    above = np.bincount(row[value > own[row]], minlength=len(asked))
    return float(gains(np.where(own > 0, 1 + above, 0), CUTOFF).mean())


@dataclass(frozen=True)
class TransitionSource(Source):
    """Item transitions: over the history, from the latest item alone, and by way of another item.

    Args:
        chosen: with the window and decay that are best on validation rows.
        direct: P(j | i) of direct successors, `(items, items)`.
    """

    chosen: Transitions
    direct: sp.csr_array

    columns: ClassVar = {
        "transitions": "transitions from the history, latest items weighing most",
        "from_last": "transitions from the latest item",
        "two_hops": "transitions by way of another item",
    }
    mixes: ClassVar = True

    @classmethod
    def fit(cls, known: Known) -> TransitionSource:
        """Count both matrices."""
        items = len(known.catalogue.ids)
        return cls._of(tuned_transitions(known.train, known.valid, items), known)

    def recount(self, known: Known) -> TransitionSource:
        """Count both matrices again."""
        settings = self.chosen.settings
        items = len(known.catalogue.ids)
        return self._of(Transitions.count(known.train, items, settings), known)

    @classmethod
    def _of(cls, chosen: Transitions, known: Known) -> TransitionSource:
        items = len(known.catalogue.ids)
        direct = Transitions.count(known.train, items, TransitionSettings())
        return cls(
            Transitions(cut_rows(chosen.matrix, SUCCESSORS), chosen.settings),
            cut_rows(direct.matrix, SUCCESSORS),
        )

    @classmethod
    def load(cls, tensors: Tensors) -> TransitionSource:
        """From what `tensors` gave."""
        window, gap_weight, decay = tensors["settings"].tolist()
        if int(window) not in WINDOWS:
            raise ValueError(f"a window of {window:g}")
        settings = TransitionSettings(int(window), gap_weight, decay)
        chosen = Transitions(matrix_of("chosen", tensors), settings)
        return cls(chosen, matrix_of("direct", tensors))

    def tensors(self) -> Tensors:
        """Both matrices and the settings."""
        return {
            **tensors_of("chosen", self.chosen.matrix),
            **tensors_of("direct", self.direct),
            "settings": np.array(astuple(self.chosen.settings), np.float64),
        }

    def candidates(self, asked: Asked) -> Ragged:
        """The best successors, and those two hops away."""
        near = asked.best(self.chosen.scores(asked.history), CANDIDATES)
        far = asked.best(self._two_hops(asked), FAR_CANDIDATES)
        return concatenate([near, far])

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        matrices = (
            self.chosen.scores(asked.history),
            (last_weights(asked) @ self.direct).tocsr(),
            self._two_hops(asked),
        )
        return np.stack([pairs.look_up(matrix) for matrix in matrices], axis=1).astype(np.float32)

    @staticmethod
    def share(features: Floats) -> Floats:
        """The sum of P(j | i)."""
        return features[:, 0]

    def _two_hops(self, asked: Asked) -> sp.csr_array:
        weights = history_weights(asked.history, asked.items, self.chosen.settings.decay)
        first = cut_rows((weights @ self.direct).tocsr(), SECOND_HOP)
        return (first @ self.direct).tocsr()
