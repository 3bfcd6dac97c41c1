"""Finds held-out rows in training data: rows that occur in both files, and parts of longer training
sequences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.base.hashing import mix
from sidtune.base.ragged import Ragged, place_of, row_of, stack
from sidtune.data.leave_one_out import Interactions
from sidtune.data.rows import Rows
from sidtune.data.sequences import one_by_one, whole
from sidtune.files.ids import in_common

# Maximum rows held as Python objects, which take twenty times their memory.
ROWS_AT_ONCE = 65_536
# Sorting takes about fifty bytes per item: users are processed in groups of about this many items.
ITEMS_AT_ONCE = 1 << 21


def examples(rows: Rows) -> Interactions:
    """The history of each row, followed by its target."""
    return Interactions(rows.users, one_by_one(rows).items)


def sequences(rows: Rows, users: pa.Array) -> Interactions:
    """The training sequences of these users: their rows joined as by `whole`."""
    all_users, wanted = in_common([rows.users, users])
    theirs = rows.take(np.flatnonzero(np.isin(all_users, wanted)))
    joined = whole(theirs)
    return Interactions(theirs.users.take(pa.array(joined.rows)), joined.items)


def contained(lists: Interactions, among: Sequence[Interactions]) -> NDArray[np.int64]:
    """Indices of lists that are a contiguous part of a list of the same user in any of `among`,
    ascending.

    Args:
        lists: none of them empty.
    """
    ours, *theirs = in_common([lists.users, *(part.users for part in among)])
    user, items = np.concatenate(theirs), stack([part.items for part in among])
    longest = np.zeros(1 + max(ours.max(initial=0), user.max(initial=0)), np.int64)
    np.maximum.at(longest, user, items.lengths)
    left = np.flatnonzero(lists.items.lengths <= longest[ours])
    asked = np.zeros(len(longest), np.int64)
    np.add.at(asked, ours[left], lists.items.lengths[left])
    there = np.flatnonzero(asked[user] > 0)
    np.add.at(asked, user[there], items.lengths[there])
    group = np.cumsum(asked) // ITEMS_AT_ONCE
    found = [
        mine[_parts(lists.items.take(mine), ours[mine], items.take(other), user[other])]
        for mine, other in _grouped(group[ours[left]], left, group[user[there]], there)
    ]
    return np.sort(np.concatenate([left[:0], *found]))


def _grouped(
    our_group: NDArray[np.int64],
    ours: NDArray[np.int64],
    their_group: NDArray[np.int64],
    theirs: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Both inputs split into groups of users, pairwise."""
    mine, other = np.argsort(our_group, kind="stable"), np.argsort(their_group, kind="stable")
    for number in np.unique(our_group):
        spans = (
            ids[order][slice(*np.searchsorted(groups[order], [number, number + 1]))]
            for ids, groups, order in ((ours, our_group, mine), (theirs, their_group, other))
        )
        yield next(spans), next(spans)


def _parts(
    lists: Ragged, user: NDArray[np.int64], among: Ragged, their_user: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mask of lists that are a contiguous part of one of `among`, `(lists,)`.

    All positions of both are sorted by the items that follow them (a suffix array). A list sorts
    before its continuations, so the first position of `among` after a list's start begins with that
    list, if any position does.
    """
    both = stack([among, lists])
    rank = _ranks(both, np.concatenate([their_user, user]), int(lists.lengths.max()))
    places = np.argsort(rank[: len(among.values)], kind="stable")
    starts = len(among.values) + lists.offsets[:-1]
    next_place = np.searchsorted(rank[places], rank[starts])
    at = places[np.minimum(next_place, len(places) - 1)]
    ends = both.offsets[1:][row_of(among)]
    fits: NDArray[np.bool_] = (
        (next_place < len(places))
        & (at + lists.lengths <= ends[at])
        & (their_user[row_of(among)[at]] == user)
    )
    same = among.cut(np.where(fits, at, 0), np.where(fits, lists.lengths, 0))
    asked = lists.cut(lists.offsets[:-1], same.lengths)
    fits[row_of(same)[same.values != asked.values]] = False
    return fits


def _ranks(lists: Ragged, user: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The rank of each position among all, `(values,)`, by user and the `length` items that follow.

    Prefix doubling (Karp, Miller and Rosenberg, 1972): the rank for twice the length is the rank of
    a pair of ranks.
    """
    row = row_of(lists)
    ends = lists.offsets[1:][row]
    rank = _dense(user[row] * (1 + int(lists.values.max())) + lists.values)
    known = 1
    while known < length:
        after = np.arange(len(rank)) + known
        inside = after < ends
        following = np.where(inside, rank[np.where(inside, after, 0)] + 1, 0)
        rank = _dense(rank * (2 + int(rank.max())) + following)
        known *= 2
    return rank


def _dense(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of each key among the distinct keys, from 0, `(n,)`."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.cumsum(np.diff(ordered, prepend=ordered[:1]) > 0)
    return rank


def repeated_rows(rows: Rows, among: Rows) -> NDArray[np.int64]:
    """Indices of rows whose user, history and target equal those of a row of `among`, ascending.

    Hashes select candidates, and only these are compared.
    """
    numbers = in_common([rows.users, among.users])
    ours, theirs = (_hashes(*pair) for pair in zip((rows, among), numbers, strict=True))
    alike = np.flatnonzero(_among(ours, theirs))
    blocks = [alike[start : start + ROWS_AT_ONCE] for start in range(0, len(alike), ROWS_AT_ONCE)]
    found = [
        _repeated(rows, block, among, np.flatnonzero(_among(theirs, ours[block])))
        for block in blocks
    ]
    return np.concatenate([alike[:0], *found])


def _repeated(
    rows: Rows, candidates: NDArray[np.int64], among: Rows, others: NDArray[np.int64]
) -> NDArray[np.int64]:
    known: set[tuple[str, bytes, int]] = set()
    for start in range(0, len(others), ROWS_AT_ONCE):
        known.update(_keys(among.take(others[start : start + ROWS_AT_ONCE])))
    return candidates[[key in known for key in _keys(rows.take(candidates))]]


def _among(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mask of hashes that are among the known ones, `(n,)`; sorting is much faster than NumPy's
    hash table here.
    """
    known = np.sort(known)
    found: NDArray[np.bool_] = known[np.searchsorted(known, hashes) % len(known)] == hashes
    return found


def _keys(rows: Rows) -> list[tuple[str, bytes, int]]:
    users, targets = rows.users.to_pylist(), rows.target.tolist()
    return [(users[row], rows.history[row].tobytes(), targets[row]) for row in range(len(targets))]


def _hashes(rows: Rows, users: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of user number, history and target of each row, `(n,)`."""
    hashes = mix(mix(users.view(np.uint64)) + rows.target.astype(np.uint64))
    for start in range(0, len(hashes), ROWS_AT_ONCE):
        block = np.arange(start, min(start + ROWS_AT_ONCE, len(hashes)))
        history = rows.history.take(block)
        entries = mix(
            history.values.astype(np.uint64) << np.uint64(32) | place_of(history).astype(np.uint64)
        )
        hashes[block] += np.add.reduceat(entries, history.offsets[:-1])  # no history is empty
    return mix(hashes)
