"""The history itself: whether a candidate stands in it, how often and how recently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, age_of, place_of, row_of
from sidtune.data.rows import Rows
from sidtune.metrics.metrics import gains
from sidtune.ranker.pairs import Asked, Floats, Pairs
from sidtune.ranker.sources.base import Known, Source, Tensors
from sidtune.ranker.tuning import CUTOFF, tuning_rows

# The usual one first: it stays where no user has an item again.
FADES = (0.5, 0.0, 0.25, 1.0, 2.0)


@dataclass(frozen=True)
class Recurrence:
    """How much speaks for a user's having an item again: the sum over its places in the history of
    (1 + number of later items) to the power of -fade. Its logarithm is the base-level activation of
    Anderson and Schooler (1991).

    Args:
        fade: 0 to count how often the user had it; the larger, the more the latest time counts.
    """

    fade: float = FADES[0]

    @classmethod
    def tuned(cls, valid: Rows | None, items: int) -> Recurrence:
        """The one of `FADES` whose order of the history has the best item-level NDCG@10 on at most
        5,000 validation rows.
        """
        if valid is None or not len(valid.target):
            return cls()
        rows = tuning_rows(valid)

        def gained(one: Recurrence) -> float:
            lists = one.order(rows.history, items)
            found = lists.values == rows.target[row_of(lists)]
            return float(gains(1 + place_of(lists)[found], CUTOFF).sum())

        return max((cls(fade) for fade in FADES), key=gained)

    def order(self, history: Ragged, items: int) -> Ragged:
        """Each history's items, each once, by their sums; of equal ones the latest first."""
        had = _Had.of(history, items, self.fade)
        row, item = np.divmod(had.keys, items)
        order = np.lexsort((had.ago, -had.sums, row))
        return Ragged.from_lengths(item[order], np.bincount(row, minlength=len(history)))


@dataclass(frozen=True)
class _Had:
    """The distinct pairs of row and item of some histories.

    Args:
        keys: each pair as row · items + item, ascending.
        sums: of `Recurrence`.
        ago: how many items ago, at the latest.
        times: how often.
    """

    keys: NDArray[np.int64]
    sums: NDArray[np.float64]
    ago: NDArray[np.int64]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, history: Ragged, items: int, fade: float) -> _Had:
        ages, keys = age_of(history), row_of(history) * items + history.values
        order = np.lexsort((ages, keys))
        ages, keys = ages[order], keys[order]
        distinct, first, counts = np.unique(keys, return_index=True, return_counts=True)
        weights = np.power(1.0 + ages, -fade)
        sums = np.add.reduceat(weights, first) if len(first) else weights
        return cls(distinct, sums, ages[first], counts)


@dataclass(frozen=True)
class History(Source):
    """What a user had before, and the length of the history."""

    recurrence: Recurrence

    columns: ClassVar = {
        "recurrence": "how often and how recently the user had it",
        "items_ago": "how many items ago the user had it",
        "times_before": "how often the user had it",
        "history_length": "length of the history",
    }
    mixes: ClassVar = True

    @classmethod
    def fit(cls, known: Known) -> History:
        """Choose how fast the weight of earlier times fades."""
        return cls(Recurrence.tuned(known.valid, len(known.catalogue.ids)))

    def recount(self, known: Known) -> History:
        """Nothing is counted."""
        return self

    @classmethod
    def load(cls, tensors: Tensors) -> History:
        """From what `tensors` gave."""
        return cls(Recurrence(float(tensors["fade"][0])))

    def tensors(self) -> Tensors:
        """The setting that was chosen."""
        return {"fade": np.array([self.recurrence.fade])}

    def candidates(self, asked: Asked) -> Ragged:
        """The history."""
        return asked.history

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`; `items_ago` is NaN for what the user never had."""
        had = _Had.of(asked.history, asked.items, self.recurrence.fade)
        place = pairs.find(had.keys)
        columns = (
            np.append(had.sums, 0.0)[place],
            np.append(had.ago.astype(np.float32), np.nan)[place],
            np.append(had.times, 0)[place],
            asked.history.lengths[pairs.row],
        )
        return np.stack(columns, axis=1).astype(np.float32)

    @staticmethod
    def share(features: Floats) -> Floats:
        """The sum of `Recurrence`."""
        return features[:, 0]
