"""What is asked of a ranker, and pairs of row and candidate item."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, place_of, row_of
from sidtune.ranker.sparse import entry_rows

Floats = NDArray[np.float32]
# Scores of a chunk of rows against the whole catalogue, which some sources need.
CHUNK_SCORES = 8_000_000
MOST_ROWS_AT_ONCE = 2_048


class Beams(NamedTuple):
    """A model's own lists.

    Args:
        items: per row, catalogue positions, best first.
        scores: `(items,)`, the log-probability of each one's SID.
    """

    items: Ragged
    scores: Floats

    def take(self, rows: NDArray[np.integer]) -> Beams:
        """The lists of these rows."""
        marked = Ragged(np.arange(len(self.scores), dtype=np.int32), self.items.offsets)
        return Beams(self.items.take(rows), self.scores[marked.take(rows).values])


@dataclass(frozen=True)
class Asked:
    """Histories that want lists.

    Args:
        history: per row, catalogue positions, oldest first.
        items: number of items in the catalogue.
        beams: the model's lists, where there is a model.
        allowed: `(items,)`, which items may be listed; all by default.
        excluded: per row, items that may not be listed; none by default.
    """

    history: Ragged
    items: int
    beams: Beams | None = None
    allowed: NDArray[np.bool_] | None = None
    excluded: Ragged | None = None

    def __len__(self) -> int:
        return len(self.history)

    def take(self, rows: NDArray[np.integer]) -> Asked:
        """Some of the rows."""
        return replace(
            self,
            history=self.history.take(rows),
            beams=self.beams and self.beams.take(rows),
            excluded=None if self.excluded is None else self.excluded.take(rows),
        )

    def chunks(self) -> Iterator[Asked]:
        """Parts that are small enough for dense scores."""
        size = max(1, min(MOST_ROWS_AT_ONCE, CHUNK_SCORES // self.items))
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    @property
    def last(self) -> NDArray[np.int32]:
        """The latest item of each history, `(rows,)`."""
        found: NDArray[np.int32] = self.history.values[self.history.offsets[1:] - 1]
        return found

    def listed(self, row: NDArray[np.integer], item: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which pairs of row and item may be listed, `(pairs,)`."""
        kept = np.ones(len(item), bool) if self.allowed is None else self.allowed[item]
        if self.excluded is not None:
            hidden = row_of(self.excluded) * self.items + self.excluded.values
            kept = kept & ~np.isin(row.astype(np.int64) * self.items + item, hidden)
        return kept

    def best(self, scores: sp.csr_array, depth: int) -> Ragged:
        """`best_of_rows` among the items that may be listed."""
        if self.allowed is not None or self.excluded is not None:
            row = entry_rows(scores)
            kept = self.listed(row, scores.indices)
            offsets = np.append(0, np.cumsum(np.bincount(row[kept], minlength=len(self))))
            parts = (scores.data[kept], scores.indices[kept], offsets)
            scores = sp.csr_array(parts, shape=scores.shape)
        return best_of_rows(scores, depth)


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs of row and item, ascending by row, then item.

    Args:
        row, item: `(pairs,)`.
        rows, items: how many of each there are.
    """

    row: NDArray[np.int64]
    item: NDArray[np.int64]
    rows: int
    items: int

    @classmethod
    def union(cls, parts: Sequence[Ragged], asked: Asked) -> Pairs:
        """All that any of the parts names for a row, as far as it may be listed."""
        rows = [row_of(part) for part in parts]
        items = [part.values.astype(np.int64) for part in parts]
        row, item = np.concatenate(rows), np.concatenate(items)
        kept = asked.listed(row, item)
        row, item = np.divmod(np.unique((row * asked.items + item)[kept]), asked.items)
        return cls(row, item, len(asked), asked.items)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def keys(self) -> NDArray[np.int64]:
        """Each pair as one number, ascending."""
        return self.row * self.items + self.item

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of candidates of each row, `(rows,)`."""
        return np.bincount(self.row, minlength=self.rows)

    def hit(self, target: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which pairs are a row and its target, `(pairs,)`."""
        found: NDArray[np.bool_] = self.item == target[self.row]
        return found

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each pair its place in ascending `keys`; -1 for pairs that are not there."""
        if not len(keys):
            return np.full(len(self), -1, np.int64)
        place = np.minimum(np.searchsorted(keys, self.keys), len(keys) - 1)
        return np.where(keys[place] == self.keys, place, -1)

    def look_up(self, scores: sp.csr_array) -> NDArray[np.float64]:
        """The entries of a sparse matrix `(rows, items)`, `(pairs,)`; 0 where it has none."""
        scores.sort_indices()
        place = self.find(entry_rows(scores) * self.items + scores.indices)
        return np.append(scores.data, 0.0)[place]

    def ranks(self, scores: NDArray[np.floating], target: NDArray[np.integer]) -> NDArray[np.int64]:
        """The place of each row's target by descending score, `(rows,)`, from 1; 0 where it is no
        candidate. Among equal scores the item that comes first in the catalogue is first.
        """
        hit, wanted = self.hit(target), target[self.row]
        own = np.full(self.rows, np.nan)
        own[self.row[hit]] = scores[hit]
        # Counting those before it is many times as fast as sorting.
        best = own[self.row]
        before = (scores > best) | ((scores == best) & (self.item < wanted))
        places = np.bincount(self.row[before], minlength=self.rows)
        return np.where(np.isnan(own), 0, places + 1)

    def places(self, scores: NDArray[np.floating]) -> NDArray[np.int64]:
        """The place of each pair in its row by descending score, from 0, `(pairs,)`."""
        order, place = self._ordered(scores)
        places = np.empty(len(order), np.int64)
        places[order] = place
        return places

    def best(self, scores: NDArray[np.floating], depth: int) -> tuple[Ragged, Floats]:
        """The best candidates of each row, at most `depth`, best first, and their scores."""
        order, place = self._ordered(scores)
        chosen = order[place < depth]
        lengths = np.minimum(self.counts, depth)
        return (
            Ragged.from_lengths(self.item[chosen], lengths),
            scores[chosen].astype(np.float32),
        )

    def _ordered(self, scores: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs by row, then descending score, and the place of each in its row."""
        order = np.lexsort((-scores, self.row))
        starts = np.cumsum(self.counts) - self.counts
        return order, np.arange(len(order)) - starts[self.row]


def best_of_rows(scores: sp.csr_array, depth: int) -> Ragged:
    """The columns with the highest entries of each row, at most `depth`, best first; of equal ones
    the first columns.
    """
    scores.sort_indices()
    order = np.lexsort((-scores.data, entry_rows(scores)))
    lists = Ragged.from_lengths(scores.indices[order], np.diff(scores.indptr))
    return lists.keep(place_of(lists) < depth)


def highest(scores: NDArray[np.floating], most: int) -> NDArray[np.int64]:
    """The columns of the highest scores of each row, `(rows, most)`, in no order.

    They lie in those blocks of columns whose maxima are highest, so only these are partitioned.

    Args:
        scores: `(rows, columns)`.
        most: at most the number of columns.
    """
    rows, columns = scores.shape
    width = math.isqrt(columns // most)
    if width < 2:
        return np.argpartition(-scores, most - 1, axis=1)[:, :most]
    whole = columns // width * width
    maxima = scores[:, :whole].reshape(rows, -1, width).max(axis=2)
    blocks = np.argpartition(-maxima, most - 1, axis=1)[:, :most, None]
    inside = (blocks * width + np.arange(width)).reshape(rows, -1)
    behind = np.broadcast_to(np.arange(whole, columns), (rows, columns - whole))
    searched = np.concatenate([inside, behind], axis=1)
    found = np.argpartition(-np.take_along_axis(scores, searched, 1), most - 1, axis=1)
    best: NDArray[np.int64] = np.take_along_axis(searched, found[:, :most], 1)
    return best
