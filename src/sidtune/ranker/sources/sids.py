"""Semantic IDs as a measure of likeness: how many leading tokens a candidate shares with the items
of a history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sidtune.data.catalogue import prefix_numbers
from sidtune.ranker.pairs import Asked, Floats, Pairs
from sidtune.ranker.prefixes import prefix_mass
from sidtune.ranker.sources.base import Known, Source, Tensors
from sidtune.ranker.sources.transitions import history_weights

# Prefixes of so many tokens; longer ones hardly any two items share.
DEPTH = 3
DECAY = 0.5


@dataclass(frozen=True)
class SidPrefixes(Source):
    """Weighted share of a history's items that have the candidate's first token, first two, first
    three.

    Args:
        numbers: `(items, depth)`, the number of each item's prefix of 1, 2, … tokens.
    """

    numbers: NDArray[np.int32]

    columns: ClassVar = {
        "one_sid_token": "share of the history with the same first SID token",
        "two_sid_tokens": "share of the history with the same first two SID tokens",
        "three_sid_tokens": "share of the history with the same first three SID tokens",
    }

    @classmethod
    def fit(cls, known: Known) -> SidPrefixes:
        """Number the prefixes."""
        return cls(prefix_numbers(known.catalogue.sids, DEPTH))

    @classmethod
    def load(cls, tensors: Tensors) -> SidPrefixes:
        """From what `tensors` gave."""
        return cls(tensors["numbers"])

    def tensors(self) -> Tensors:
        """The numbers."""
        return {"numbers": self.numbers}

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        weights = history_weights(asked.history, asked.items, DECAY)
        return prefix_mass(weights, self.numbers, pairs)
