"""Joins rows with growing histories of a user into whole sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, concatenate
from sidtune.data.rows import Rows


@dataclass(frozen=True)
class Sequences:
    """Parts of users' histories, oldest item first.

    Args:
        items: n lists of catalogue positions.
        context: `(n,)`, number of leading items that are only context; the others are targets.
        rows: `(n,)`, index of a row of the same user.
    """

    items: Ragged
    context: NDArray[np.int64]
    rows: NDArray[np.int64]


def one_by_one(rows: Rows) -> Sequences:
    """One sequence per row: the history is context, the target is predicted."""
    items = concatenate([rows.history, Ragged.column(rows.target)])
    return Sequences(items, rows.history.lengths, np.arange(len(items)))


def one_back(rows: Rows) -> Sequences:
    """One sequence per row in reversed order: the target is context, the item before it is
    predicted.
    """
    items = concatenate([Ragged.column(rows.target), rows.history.latest(1)])
    return Sequences(items, np.ones(len(items), np.int64), np.arange(len(items)))


def joined(rows: Rows) -> Sequences:
    """The sequences of `whole`, cut into windows that overlap by half if they are longer than the
    longest row.

    Thus no target has more context than a row would have.
    """
    return _windows(whole(rows), _width(rows))


def backward(rows: Rows) -> Sequences:
    """The sequences of `whole`, newest item first and all items targets, in windows as
    in `joined`.
    """
    forward = whole(rows)
    sequences = Sequences(forward.items.reversed(), np.zeros_like(forward.context), forward.rows)
    return _windows(sequences, _width(rows))


def _width(rows: Rows) -> int:
    """The number of items of the longest row."""
    return 1 + int(rows.history.lengths.max(initial=1))


def whole(rows: Rows) -> Sequences:
    """Join consecutive rows of each user into one sequence, if each row continues the previous one.

    Every row's target is predicted once, and so are the history items of a user's first row.
    """
    order, opens = _chains(rows)
    first = order[opens]
    counts = np.diff(np.append(np.flatnonzero(opens), len(order)))
    history = rows.history.take(first)
    targets = Ragged.from_lengths(rows.target[order], counts)
    # A later chain of the same user starts with items that were already predicted.
    users = rows.users.dictionary_encode().indices.to_numpy()[first]
    context = np.where(np.diff(users, prepend=-1) != 0, 0, history.lengths)
    return Sequences(concatenate([history, targets]), context, first)


def _chains(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """An order of rows by user, short histories first, and a mask of rows that start a sequence,
    both `(n,)`.
    """
    users, lengths = rows.users.dictionary_encode().indices.to_numpy(), rows.history.lengths
    order = np.lexsort((lengths, users))
    before, row = order[:-1], order[1:]
    # Positions count from the end: the last history item of a row must be the target of the
    # previous row.
    same = (users[before] == users[row]) & (lengths[row] <= lengths[before] + 1)
    same &= _from_end(rows.history, row, 0) == rows.target[before]
    left = np.flatnonzero(same)
    for place in range(1, int(lengths.max(initial=0))):
        left = left[lengths[row[left]] > place]
        agree = _from_end(rows.history, row[left], place) == _from_end(
            rows.history, before[left], place - 1
        )
        same[left] = agree
        left = left[agree]
    return order, np.append(np.ones(min(1, len(order)), bool), ~same)


def _from_end(lists: Ragged, rows: NDArray[np.int64], place: int) -> NDArray[np.int32]:
    values: NDArray[np.int32] = lists.values[lists.offsets[rows + 1] - 1 - place]
    return values


def _windows(sequences: Sequences, width: int) -> Sequences:
    """Sequences of at most `width` items; each predicts the half window that follows the previous
    one.
    """
    lengths, step = sequences.items.lengths, max(1, width // 2)
    counts = 1 + np.maximum(0, -(-(lengths - width) // step))
    of = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = np.minimum(lengths[of], width + number * step)
    starts = np.maximum(0, ends - width)
    context = np.where(number == 0, sequences.context[of], width + (number - 1) * step - starts)
    # Never a copy of its whole sequence for each window: that is quadratic in a long one.
    items = sequences.items.cut(sequences.items.offsets[of] + starts, ends - starts)
    assert (context < items.lengths).all(), "every window predicts something"
    return Sequences(items, context, sequences.rows[of])
