"""How many training users an item has, and how late they had it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, place_of, repeat, row_of
from sidtune.data.rows import Rows
from sidtune.data.sequences import whole
from sidtune.ranker.pairs import Asked, Floats, Pairs
from sidtune.ranker.sources.base import Known, Source, Tensors

CANDIDATES = 10


@dataclass(frozen=True)
class Popularity(Source):
    """Training users of the candidate, and how late it stands in their histories.

    In data that was reduced to its k-core, an item with fewer than k training users must occur in
    the held-out events. A ranker finds that out, so figures are shown without this source too.

    Args:
        users: `(items,)`.
        places: `(items,)`, the mean of an item's places in histories, from 0, the oldest, to 1, the
            newest; NaN for items in none.
    """

    users: NDArray[np.int64]
    places: Floats

    columns: ClassVar = {
        "training_users": "number of its training users",
        "mean_place": "its mean place in their histories: 0 oldest, 1 newest",
    }
    mixes: ClassVar = True

    @classmethod
    def fit(cls, known: Known) -> Popularity:
        """Count."""
        return cls(known.users, _places(known.train, len(known.users)))

    @classmethod
    def load(cls, tensors: Tensors) -> Popularity:
        """From what `tensors` gave."""
        return cls(tensors["users"], tensors["places"])

    def tensors(self) -> Tensors:
        """Both arrays."""
        return {"users": self.users, "places": self.places}

    def candidates(self, asked: Asked) -> Ragged:
        """The most popular items that may be listed."""
        order = self._order
        listed = order if asked.allowed is None else order[asked.allowed[order]]
        if asked.excluded is None:
            return repeat(listed[:CANDIDATES].tolist(), len(asked))
        # So many that enough are left.
        longest = int(asked.excluded.lengths.max(initial=0))
        lists = repeat(listed[: CANDIDATES + longest].tolist(), len(asked))
        lists = lists.keep(asked.listed(row_of(lists), lists.values))
        return lists.keep(place_of(lists) < CANDIDATES)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Items, the most popular first."""
        return np.argsort(-self.users, kind="stable")

    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """As `columns`."""
        found = [self.users[pairs.item].astype(np.float32), self.places[pairs.item]]
        return np.stack(found, axis=1)

    @staticmethod
    def share(features: Floats) -> Floats:
        """The number of users."""
        return features[:, 0]


def _places(train: Rows, items: int) -> Floats:
    """See `Popularity`; the middle of an event's share of its history is its place."""
    histories = whole(train).items
    place = (place_of(histories) + 0.5) / np.repeat(histories.lengths, histories.lengths)
    times = np.bincount(histories.values, minlength=items)
    summed = np.bincount(histories.values, weights=place, minlength=items)
    found: Floats = (summed / np.where(times > 0, times, np.nan)).astype(np.float32)
    return found
