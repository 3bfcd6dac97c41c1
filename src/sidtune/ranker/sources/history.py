"""The history itself: whether a candidate stands in it, and how long it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sidtune.base.ragged import Ragged, age_of, row_of
from sidtune.ranker.pairs import Asked, Floats, Pairs
from sidtune.ranker.sources.base import Known, Source, Tensors


@dataclass(frozen=True)
class History(Source):
    """How many items ago the user had the candidate, NaN for never; how often; and the length of
    the history.
    """

    columns: ClassVar = {
        "items_ago": "how many items ago the user had it",
        "times_before": "how often the user had it",
        "history_length": "length of the history",
    }

    @classmethod
    def fit(cls, known: Known) -> History:
        """Nothing to count."""
        return cls()

    @classmethod
    def load(cls, tensors: Tensors) -> History:
        """Nothing to load."""
        return cls()

    def tensors(self) -> Tensors:
        """None."""
        return {}

    def candidates(self, asked: Asked) -> Ragged:
        """The history."""
        return asked.history

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        history = asked.history
        ages = age_of(history)
        keys = row_of(history) * asked.items + history.values
        # Of several places of an item the latest.
        order = np.lexsort((ages, keys))
        distinct, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
        place = pairs.find(distinct)
        ago = np.append(ages[order][first].astype(np.float32), np.float32(np.nan))[place]
        times = np.append(counts, 0)[place]
        length = history.lengths[pairs.row]
        return np.stack([ago, times, length], axis=1).astype(np.float32)
