"""Rows of one file that stand in another too."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sidtune.data.rows import Rows
from sidtune.hashing import mix
from sidtune.ragged import place_of

# As Python objects a row takes twenty times its memory: never more of them than this at once.
ROWS_AT_ONCE = 65_536


def repeated_rows(rows: Rows, among: Rows) -> NDArray[np.int64]:
    """Which rows have user, history and target of a row of `among`, ascending.

    Hashes find those that may, and only these are compared.
    """
    users = among.users.dictionary_encode()
    theirs = _hashes(among, users.indices)
    ours = _hashes(rows, pc.fill_null(pc.index_in(rows.users, value_set=users.dictionary), -1))
    alike = np.flatnonzero(_among(ours, theirs))
    blocks = [alike[start : start + ROWS_AT_ONCE] for start in range(0, len(alike), ROWS_AT_ONCE)]
    found = [_repeated(rows, block, among, np.flatnonzero(_among(theirs, ours[block]))) for block in blocks]
    return np.concatenate([alike[:0], *found])


def _repeated(rows: Rows, candidates: NDArray[np.int64], among: Rows, others: NDArray[np.int64]) -> NDArray[np.int64]:
    known: set[tuple[str, bytes, int]] = set()
    for start in range(0, len(others), ROWS_AT_ONCE):
        known.update(_keys(among.take(others[start : start + ROWS_AT_ONCE])))
    return candidates[[key in known for key in _keys(rows.take(candidates))]]


def _among(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which hashes are among the known ones, `(n,)`; sorting is many times faster than NumPy's table of millions."""
    known = np.sort(known)
    found: NDArray[np.bool_] = known[np.searchsorted(known, hashes) % len(known)] == hashes
    return found


def _keys(rows: Rows) -> list[tuple[str, bytes, int]]:
    users, targets = rows.users.to_pylist(), rows.target.tolist()
    return [(users[row], rows.history[row].tobytes(), targets[row]) for row in range(len(targets))]


def _hashes(rows: Rows, users: pa.Array) -> NDArray[np.uint64]:
    """A hash of user number, history and target of each row, `(n,)`."""
    numbers = users.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    hashes = mix(mix(numbers) + rows.target.astype(np.uint64))
    for start in range(0, len(hashes), ROWS_AT_ONCE):
        block = np.arange(start, min(start + ROWS_AT_ONCE, len(hashes)))
        history = rows.history.take(block)
        entries = mix(history.values.astype(np.uint64) << np.uint64(32) | place_of(history).astype(np.uint64))
        hashes[block] += np.add.reduceat(entries, history.offsets[:-1])  # no history is empty
    return mix(hashes)
