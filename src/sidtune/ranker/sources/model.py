"""The model's own list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, place_of, repeat, row_of
from sidtune.data.catalogue import prefix_numbers
from sidtune.ranker.pairs import Asked, Beams, Floats, Pairs
from sidtune.ranker.prefixes import prefix_mass
from sidtune.ranker.sources.base import Known, Source, Tensors

# Prefixes of so many tokens, below which the probability of the listed SIDs is summed.
DEPTH = 2


@dataclass(frozen=True)
class Model(Source):
    """Log-probability of the candidate's SID and its place in the model's list, NaN outside of it.
    Of every candidate: the probability of the listed items that share its first token, and its
    first two, each item with the probability of its SID; and the log-probability of being a user's
    newest item.

    Args:
        numbers: `(items, depth)`, the number of each item's prefix of 1, 2, … tokens.
        newest: as in `Known`, NaN where the model cannot tell.
    """

    numbers: NDArray[np.int32]
    newest: Floats

    columns: ClassVar = {
        "log_probability": "model: log-probability of its SID",
        "place": "model: its place in the list",
        "one_token_mass": "model: probability of listed items with its first token",
        "two_token_mass": "model: probability of listed items with its first two tokens",
        "newest": "model: log-probability of being a user's newest item",
    }
    mixes: ClassVar = True

    @classmethod
    def fit(cls, known: Known) -> Model:
        """Number the prefixes."""
        numbers = prefix_numbers(known.catalogue.sids, DEPTH)
        unknown = np.full(len(numbers), np.nan, np.float32)
        return cls(numbers, unknown if known.newest is None else known.newest)

    @classmethod
    def load(cls, tensors: Tensors) -> Model:
        """From what `tensors` gave."""
        return cls(tensors["numbers"], tensors["newest"])

    def tensors(self) -> Tensors:
        """Both arrays."""
        return {"numbers": self.numbers, "newest": self.newest}

    def candidates(self, asked: Asked) -> Ragged:
        """The model's list."""
        return asked.beams.items if asked.beams else repeat([], len(asked))

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        beams = asked.beams or Beams(repeat([], len(asked)), np.zeros(0, np.float32))
        keys = row_of(beams.items) * asked.items + beams.items.values
        order = np.argsort(keys, kind="stable")
        place = pairs.find(keys[order])
        unlisted = np.float32(np.nan)
        score = np.append(beams.scores[order], unlisted)[place]
        places = np.append(place_of(beams.items)[order].astype(np.float32), unlisted)[place]
        mass = prefix_mass(_probabilities(beams, asked), self.numbers, pairs)
        columns = [score[:, None], places[:, None], mass, self.newest[pairs.item][:, None]]
        return np.concatenate(columns, axis=1).astype(np.float32)

    @staticmethod
    def share(features: Floats) -> Floats:
        """The probability."""
        shares: Floats = np.exp(np.nan_to_num(features[:, 0], nan=-np.inf))
        return shares


def _probabilities(beams: Beams, asked: Asked) -> sp.csr_array:
    """Those of the listed items' SIDs, `(rows, items)`."""
    parts = (np.exp(beams.scores), beams.items.values, beams.items.offsets)
    return sp.csr_array(parts, shape=(len(asked), asked.items))
