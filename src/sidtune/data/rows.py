"""Interaction rows with items as catalogue positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.base.errors import UserError, some
from sidtune.base.ragged import Ragged, row_of, stack
from sidtune.base.resources import memory
from sidtune.base.storage import GIB
from sidtune.data.catalogue import Catalogue
from sidtune.files.ids import as_users
from sidtune.files.row_files import row_batches

Split = Literal["train", "valid", "test"]
SHOWN = 3
# What the histories of all rows may take of the machine's memory.
MEMORY_SHARE, BYTES_OF_ITEM = 0.5, 4


@dataclass(frozen=True)
class Rows:
    """Interaction rows with items as catalogue positions.

    Args:
        users: `(n,)` dictionary-encoded user ids; `7.0` is user `7`.
        history: n non-empty lists of catalogue positions, oldest first.
        target: `(n,)` catalogue positions.
    """

    users: pa.Array
    history: Ragged
    target: NDArray[np.int32]

    def take(self, chosen: NDArray[np.integer]) -> Rows:
        """The rows at these indices, in that order."""
        return Rows(
            self.users.take(pa.array(chosen)), self.history.take(chosen), self.target[chosen]
        )

    def latest(self, longest: int | None) -> Rows:
        """The rows with histories cut to the `longest` latest items; None keeps all."""
        return self if longest is None else replace(self, history=self.history.latest(longest))


def need_room(
    lengths: NDArray[np.int64], users: NDArray[np.integer], names: pa.Array, remedy: str
) -> None:
    """Refuse rows whose histories would not fit into memory, before they are made: those of a user
    with very many events grow with the square of their length.

    Args:
        lengths: of each row's history, `(n,)`.
        users: the place of each row's user in `names`, `(n,)`.
    """
    total, there = int(lengths.sum()), memory()
    if not there or total * BYTES_OF_ITEM <= there * MEMORY_SHARE:
        return
    most = int(np.bincount(users, lengths).argmax())
    theirs = lengths[users == most]
    raise UserError(
        f"{len(lengths):,} rows have {total:,} items in their histories, which take"
        f" {total * BYTES_OF_ITEM / GIB:.0f} GiB of memory; user {str(names[most])[:60]} has"
        f" {len(theirs):,} of these rows, with histories of up to {int(theirs.max()):,} items",
        remedy,
    )


def drawn(count: int, limit: int | None, seed: int) -> NDArray[np.int64]:
    """Sample at most `limit` of `count` row indices with a seed, ascending."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def load_rows(path: Path, catalogue: Catalogue) -> Rows:
    """Read a file of any size with items as catalogue positions; raises as `row_batches` and
    `resolve_rows`.
    """
    return _resolved(row_batches(path), catalogue, path)


def resolve_rows(table: pa.Table, catalogue: Catalogue, path: Path) -> Rows:
    """Replace the item ids of a table of schema `ROWS` by catalogue positions.

    Raises:
        UserError: for items that are not in the catalogue, with the first rows that contain them.
    """
    return _resolved([table], catalogue, path)


def _resolved(tables: Iterable[pa.Table], catalogue: Catalogue, path: Path) -> Rows:
    """Resolve one table at a time, to limit memory."""
    parts: list[Rows] = []
    before, bad, first, names = 0, 0, 0, set[str]()
    for table in tables:
        part, ids = _positions(table, catalogue)
        unknown = np.union1d(
            row_of(part.history)[part.history.values < 0], np.flatnonzero(part.target < 0)
        )
        if len(unknown):
            first = first or before + int(unknown[0]) + 1
            bad += len(unknown)
            names.update(ids)
        parts.append(part)
        before += table.num_rows
    if bad:
        raise UserError(
            f"{path}: {bad:,} rows contain items without a SID: {some(sorted(names))} (first in row"
            f" {first})",
            "Add them to items and index, or remove these rows.",
        )
    return stacked(parts)


def _positions(table: pa.Table, catalogue: Catalogue) -> tuple[Rows, list[str]]:
    """A table's rows, with -1 for unknown items, and the ids of these."""
    history, targets = table["history"].combine_chunks(), table["target"].combine_chunks()
    flat, offsets = history.flatten(), history.offsets.to_numpy()
    items, target = catalogue.positions(flat), catalogue.positions(targets)
    unknown = [
        ids.filter(pa.array(at < 0)).to_pylist() for ids, at in ((flat, items), (targets, target))
    ]
    users = as_users(table["user_id"].combine_chunks())
    return Rows(users, Ragged(items, offsets - offsets[0]), target), [*unknown[0], *unknown[1]]


def stacked(parts: Sequence[Rows]) -> Rows:
    """All rows of the first part, then all rows of the second, and so on."""
    users = pa.concat_arrays([part.users for part in parts])
    return Rows(
        users,
        stack([part.history for part in parts]),
        np.concatenate([part.target for part in parts]),
    )
