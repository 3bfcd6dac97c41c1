"""Lists of unequal length as two flat arrays, and the few vectorised operations that encoding
needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LISTS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Ragged:
    """`n` lists: list `i` is `values[offsets[i]:offsets[i + 1]]`.

    Args:
        values: `(sum of lengths,)`, int32.
        offsets: `(n + 1,)`, int64, ascending, from 0 to `len(values)`.
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]]) -> Ragged:
        """Flatten Python lists."""
        offsets = _offsets([len(entry) for entry in lists])
        return cls(np.fromiter(chain.from_iterable(lists), np.int32, offsets[-1]), offsets)

    @classmethod
    def from_lengths(cls, values: NDArray[np.integer], lengths: NDArray[np.integer]) -> Ragged:
        """Cut values into lists of these lengths."""
        return cls(values.astype(np.int32), _offsets(lengths))

    @classmethod
    def column(cls, values: NDArray[np.int32]) -> Ragged:
        """One value a list: `(n,)` becomes n lists of length 1."""
        return cls(values, np.arange(len(values) + 1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each list, `(n,)`."""
        return np.diff(self.offsets)

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: NDArray[np.integer]) -> Ragged:
        """The lists at `rows`, in that order, `(len(rows),)` of them; a run of rows is seen
        through, not copied.
        """
        if len(rows) and (np.diff(rows) == 1).all():
            offsets = self.offsets[rows[0] : rows[-1] + 2]
            return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        starts = self.offsets[rows]
        return self.cut(starts, self.offsets[rows + 1] - starts)

    def drop_front(self, counts: NDArray[np.integer]) -> Ragged:
        """Each list without its first `counts[i]` values."""
        return self.cut(self.offsets[:-1] + counts, self.lengths - counts)

    def drop_back(self, counts: NDArray[np.integer]) -> Ragged:
        """Each list without its last `counts[i]` values."""
        return self.cut(self.offsets[:-1], self.lengths - counts)

    def latest(self, longest: int) -> Ragged:
        """Each list's last values, at most `longest` of them."""
        return self.drop_front(np.maximum(self.lengths - longest, 0))

    def keep(self, kept: NDArray[np.bool_]) -> Ragged:
        """Each list with those of its values that are marked in `kept`, `(values,)`."""
        return Ragged.from_lengths(
            self.values[kept], np.bincount(row_of(self)[kept], minlength=len(self))
        )

    def reversed(self) -> Ragged:
        """Each list from its end to its start."""
        return Ragged(
            self.values[np.repeat(self.offsets[1:] - 1, self.lengths) - place_of(self)],
            self.offsets,
        )

    def rectangle(self, width: int, fill: int = -1) -> NDArray[np.int64]:
        """The lists as rows `(n, width)`, filled up at the end."""
        rows = np.full((len(self), width), fill, np.int64)
        rows[row_of(self), place_of(self)] = self.values
        return rows

    def flatten(self, inner: Ragged) -> Ragged:
        """Treat the values as rows of `inner` and join what they name: lists of items become lists
        of tokens.
        """
        tokens = inner.take(self.values)
        return Ragged(tokens.values, tokens.offsets[self.offsets])

    def cut(self, starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> Ragged:
        """The lists of these lengths that start at these values."""
        offsets = _offsets(lengths)
        values = np.empty(offsets[-1], np.int32)
        # Each value's place takes three times the memory of the value: never for all of them at
        # once.
        for first in range(0, len(lengths), LISTS_AT_ONCE):
            block = slice(first, first + LISTS_AT_ONCE)
            ends = offsets[first : first + LISTS_AT_ONCE + 1]
            places = _ranges(starts[block], lengths[block], ends - ends[0])
            values[ends[0] : ends[-1]] = self.values[places]
        return Ragged(values, offsets)

    def to_arrow(self) -> pa.LargeListArray:
        """As an Arrow `large_list<int32>`, without a copy."""
        return pa.LargeListArray.from_arrays(
            pa.array(self.offsets), pa.array(self.values, pa.int32())
        )


def concatenate(parts: Sequence[Ragged]) -> Ragged:
    """Join row by row: list `i` of the result is list `i` of every part, one after the other."""
    lengths = np.stack([part.lengths for part in parts])
    offsets = _offsets(lengths.sum(axis=0))
    starts = offsets[:-1] + np.cumsum(lengths, axis=0) - lengths
    values = np.empty(offsets[-1], np.int32)
    for part, start in zip(parts, starts, strict=True):
        values[_ranges(start, part.lengths, part.offsets)] = part.values
    return Ragged(values, offsets)


def stack(parts: Sequence[Ragged]) -> Ragged:
    """All lists of the first part, then all lists of the second, and so on."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged(np.concatenate([part.values for part in parts]), _offsets(lengths))


def repeat(ids: Sequence[int], n: int) -> Ragged:
    """The same list `n` times."""
    values = np.tile(np.asarray(ids, np.int32), n)
    return Ragged(values, np.arange(n + 1, dtype=np.int64) * len(ids))


def row_of(lists: Ragged) -> NDArray[np.int64]:
    """The list that each value stands in, `(values,)`."""
    return np.repeat(np.arange(len(lists)), lists.lengths)


def place_of(lists: Ragged) -> NDArray[np.int64]:
    """The place of each value in its list, from 0, `(values,)`."""
    return np.arange(len(lists.values)) - np.repeat(lists.offsets[:-1], lists.lengths)


def age_of(lists: Ragged) -> NDArray[np.int64]:
    """How many values of its list come after each value, `(values,)`."""
    return np.repeat(lists.lengths, lists.lengths) - 1 - place_of(lists)


def _offsets(lengths: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _ranges(
    starts: NDArray[np.integer], lengths: NDArray[np.integer], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`start, start + 1, …` for each range, one after the other; `offsets` are those of
    `lengths`.
    """
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
