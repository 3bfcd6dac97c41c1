"""Item transitions: counts of which items followed which in training sequences."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, place_of, row_of
from sidtune.data.popularity import popularity
from sidtune.data.rows import Rows, drawn
from sidtune.data.sequences import whole
from sidtune.metrics.metrics import gains
from sidtune.opponents.popular import tie_break

CUTOFF = 10
TUNING_ROWS, TUNING_SEED = 5_000, 0
# Pairs d places apart count `GAP_WEIGHT` to the power of d - 1.
GAP_WEIGHT = 0.5


@dataclass(frozen=True)
class TransitionSettings:
    """How transitions are counted and used.

    Args:
        window: an item counts as a successor up to this many places later.
        decay: factor on the weight of a history's item for every item after it.
    """

    window: int = 1
    decay: float = 0.3


GRID = tuple(
    TransitionSettings(window, decay) for window, decay in product((1, 2, 4), (0.1, 0.3, 0.5, 0.7))
)


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
        sources, targets, weights = [], [], []
        for gap in range(1, settings.window + 1):
            later = np.flatnonzero(place >= np.maximum(gap, known))
            sources.append(lists.values[later - gap])
            targets.append(lists.values[later])
            weights.append(np.full(len(later), GAP_WEIGHT ** (gap - 1)))
        pairs = (np.concatenate(sources), np.concatenate(targets))
        counted = sp.csr_array((np.concatenate(weights), pairs), shape=(items, items))
        totals = np.asarray(counted.sum(axis=1)).ravel()
        shares = sp.diags_array(np.divide(1, totals, out=np.zeros(items), where=totals > 0))
        return cls((shares @ counted).tocsr(), settings)

    def scores(self, history: Ragged) -> sp.csr_array:
        """Sum of P(j | i) over a history's items i, weighted by `decay` to the power of their age,
        `(rows, items)`.
        """
        weights = history_weights(history, self.matrix.shape[0], self.settings.decay)
        return (weights @ self.matrix).tocsr()

    def as_json(self) -> dict[str, Any]:
        """The settings."""
        return {**asdict(self.settings), "gap_weight": GAP_WEIGHT}


def history_weights(history: Ragged, items: int, decay: float) -> sp.csr_array:
    """`decay` to the power of the number of later items, `(rows, items)`; repeats add up."""
    ages = np.repeat(history.lengths, history.lengths) - 1 - place_of(history)
    shape = (len(history), items)
    return sp.csr_array((decay**ages, history.values, history.offsets), shape=shape)


def tuned_transitions(
    train: Rows,
    valid: Rows | None,
    items: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    exclude_history: bool = False,
) -> Transitions:
    """Transitions with the settings of `GRID` that have the best item-level NDCG@10 on at most
    5,000 validation rows; without validation rows, with the default settings.

    A target without a score counts as a miss here, though in evaluation its popularity might list
    it.

    Args:
        train, valid: rows.
        items: number of items.
        allowed, exclude_history: as in `rank_baselines`.
    """
    if valid is None or not len(valid.target):
        return Transitions.count(train, items, TransitionSettings())
    rows = valid.take(drawn(len(valid.target), TUNING_ROWS, TUNING_SEED))
    counted = {
        window: Transitions.count(train, items, TransitionSettings(window))
        for window in {settings.window for settings in GRID}
    }
    tried = [Transitions(counted[settings.window].matrix, settings) for settings in GRID]
    hidden = rows.history if exclude_history else None
    ties = tie_break(popularity(train, items))
    return max(
        tried, key=lambda one: _ndcg(one.scores(rows.history), rows.target, ties, allowed, hidden)
    )


def _ndcg(
    scores: sp.csr_array,
    target: NDArray[np.integer],
    ties: NDArray[np.float64],
    allowed: NDArray[np.bool_] | None,
    hidden: Ragged | None,
) -> float:
    """Mean NDCG@10 of the targets among the items with a score; `ties`, `(items,)`, is added."""
    row, items = np.repeat(np.arange(len(target)), np.diff(scores.indptr)), scores.shape[1]
    listed = np.ones(len(row), bool) if allowed is None else allowed[scores.indices]
    if hidden is not None:
        listed &= ~np.isin(
            row * items + scores.indices, row_of(hidden) * items + hidden.values.astype(np.int64)
        )
    row, column = row[listed], scores.indices[listed]
    value = scores.data[listed] + ties[column]
    own = np.zeros(len(target))
    found = column == target[row]
    own[row[found]] = value[found]
    above = np.bincount(row[value > own[row]], minlength=len(target))
    ranks = np.where(own > 0, 1 + above, 0)
    return float(gains(ranks, CUTOFF).mean())
