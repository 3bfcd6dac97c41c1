"""Sorted events to files: whole sequences, or a row for each target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged
from sidtune.data.leave_one_out import FEWEST
from sidtune.data.rows import need_room
from sidtune.events.splits import SPLITS, Cuts

MOMENT = pa.timestamp("us", "UTC")
INTERACTIONS = "interactions.parquet"
# Parquet holds a column of so many rows in memory before it writes them.
ROWS_OF_GROUP = 1 << 17
# Of histories that are written at once: those of one user may be many times the user's events.
ITEMS_AT_ONCE = 1 << 23
FEWER = "Set events.history to fewer items, or leave out the older events: events.latest."


@dataclass(frozen=True)
class Names:
    """What the numbers in events stand for.

    Args:
        users, items: ids by their numbers, `large_string`.
        dated: whether times are dates.
    """

    users: pa.Array
    items: pa.Array
    dated: bool

    def times(self, times: NDArray[np.int64]) -> pa.Array:
        """Times as dates, where they are some."""
        return pa.array(times).cast(MOMENT) if self.dated else pa.array(times)

    def of_items(self, codes: NDArray[np.int32]) -> pa.Array:
        """Items as text of which each is held once."""
        return _named(self.items, codes)

    def of_users(self, codes: NDArray[np.int32]) -> pa.Array:
        """Users as text of which each is held once."""
        return _named(self.users, codes)


@dataclass
class Written:
    """What was written.

    Args:
        rows: of each file, without its ending.
        ties: events with the time, and the position if there are such, of another event of the same
            user.
        longest: the most events of a user.
        longest_user: who has them.
        split: users with enough events to hold two out, of whole sequences.
        cold: rows of each held-out split whose target is no target and in no history of a training
            row.
    """

    rows: dict[str, int] = field(default_factory=dict)
    ties: int = 0
    longest: int = 0
    longest_user: int = -1
    split: int = 0
    cold: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """Events of several users in order, each user's one after another.

    Args:
        users, items, times, positions, weights: `(n,)`; the last two are None where events have
            none.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64]
    positions: NDArray[np.int64] | None
    weights: NDArray[np.float64] | None

    @classmethod
    def of(cls, table: pa.Table) -> Piece:
        """A table of the columns `user`, `item`, `time` and perhaps `position` and `weight`."""
        # To DuckDB, 2.5 is a decimal number.
        weights = (
            table["weight"].cast(pa.float64()).to_numpy()
            if "weight" in table.column_names
            else None
        )
        positions = table["position"].to_numpy() if "position" in table.column_names else None
        user, item, time = (table[name].to_numpy() for name in ("user", "item", "time"))
        return cls(user, item, time, positions, weights)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each user's events begin."""
        return np.flatnonzero(np.diff(self.users, prepend=-1))

    def part(self, start: int, end: int | None = None) -> Piece:
        """Some of the events."""
        cut = slice(start, end)
        positions = None if self.positions is None else self.positions[cut]
        weights = None if self.weights is None else self.weights[cut]
        return Piece(self.users[cut], self.items[cut], self.times[cut], positions, weights)


def whole_users(tables: Iterable[pa.Table]) -> Iterator[Piece]:
    """A sorted stream cut where one user ends and another begins."""
    waiting: list[Piece] = []
    for table in tables:
        piece = Piece.of(table)
        if not len(piece):
            continue
        last = int(piece.starts[-1])
        if waiting and (last or piece.users[0] != waiting[0].users[0]):
            yield _joined([*waiting, piece.part(0, last)])
            waiting = []
        elif last:
            yield piece.part(0, last)
        waiting.append(piece.part(last))
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[Piece]) -> Piece:
    positions = [piece.positions for piece in pieces if piece.positions is not None]
    weights = [piece.weights for piece in pieces if piece.weights is not None]
    return Piece(
        np.concatenate([piece.users for piece in pieces]),
        np.concatenate([piece.items for piece in pieces]),
        np.concatenate([piece.times for piece in pieces]),
        np.concatenate(positions) if positions else None,
        np.concatenate(weights) if weights else None,
    )


def write_sequences(tables: Iterable[pa.Table], names: Names, folder: Path) -> Written:
    """Write one row a user: `user_id`, `items`, `times` and perhaps `weights`, oldest first."""
    written = Written(dict.fromkeys(["interactions"], 0))
    with Writers(folder) as writers:
        for piece in whole_users(tables):
            starts = piece.starts
            offsets = pa.array(np.append(starts, len(piece)), pa.int32())
            columns = {
                "user_id": names.of_users(piece.users[starts]),
                "items": pa.ListArray.from_arrays(offsets, names.of_items(piece.items)),
                "times": pa.ListArray.from_arrays(offsets, names.times(piece.times)),
            }
            if piece.weights is not None:
                columns["weights"] = pa.ListArray.from_arrays(offsets, pa.array(piece.weights))
            writers.add("interactions", pa.table(columns))
            written.rows["interactions"] += len(starts)
            written.split += int((np.diff(offsets.to_numpy()) >= FEWEST).sum())
            _measure(piece, written)
    return written


def write_rows(
    tables: Iterable[pa.Table], names: Names, cuts: Cuts, history: int, folder: Path
) -> Written:
    """Write a row for every event that has another of its user before it, into the file of its
    split.

    Args:
        history: the most items of a history, the latest ones.

    Raises:
        UserError: where a user's rows would take more memory than there is.
    """
    written = Written(dict.fromkeys(SPLITS, 0))
    trained = np.zeros(len(names.items), bool)
    held_out = np.zeros((len(SPLITS), len(names.items)), np.int64)
    with Writers(folder) as writers:
        for piece in whole_users(tables):
            place = np.arange(len(piece)) - np.repeat(
                piece.starts, np.diff(np.append(piece.starts, len(piece)))
            )
            targets = np.flatnonzero(place)
            splits = cuts.split(piece.times[targets])
            for number, name in enumerate(SPLITS):
                chosen = targets[splits == number]
                lengths = np.minimum(place[chosen], history)
                need_room(lengths, piece.users[chosen], names.users, FEWER)
                for block in _blocks(lengths):
                    rows, table = _rows(piece, chosen[block], lengths[block], names)
                    writers.add(name, table)
                    if name == "train":
                        trained[rows.values] = trained[piece.items[chosen[block]]] = True
                written.rows[name] += len(chosen)
                held_out[number] += np.bincount(piece.items[chosen], minlength=len(names.items))
            _measure(piece, written)
    written.cold = {
        name: int(held_out[number][~trained].sum()) for number, name in enumerate(SPLITS) if number
    }
    return written


def _blocks(lengths: NDArray[np.int64]) -> Iterator[slice]:
    """Rows whose histories have about `ITEMS_AT_ONCE` items; a single block where there is none."""
    blocks = np.cumsum(lengths) // ITEMS_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(lengths)]
    yield from (slice(start, end) for start, end in pairwise(edges))


def _rows(
    piece: Piece, chosen: NDArray[np.int64], lengths: NDArray[np.int64], names: Names
) -> tuple[Ragged, pa.Table]:
    """Histories of these lengths, and the rows of these targets."""
    lists = Ragged(piece.items, np.zeros(1, np.int64)).cut(chosen - lengths, lengths)
    columns: dict[str, Any] = {
        "user_id": names.of_users(piece.users[chosen]),
        "history": pa.ListArray.from_arrays(
            pa.array(lists.offsets, pa.int32()), names.of_items(lists.values)
        ),
        "item_id": names.of_items(piece.items[chosen]),
        "time": names.times(piece.times[chosen]),
    }
    if piece.weights is not None:
        columns["weight"] = pa.array(piece.weights[chosen])
    return lists, pa.table(columns)


def _measure(piece: Piece, written: Written) -> None:
    lengths = np.diff(np.append(piece.starts, len(piece)))
    if lengths.max() > written.longest:
        written.longest = int(lengths.max())
        written.longest_user = int(piece.users[piece.starts[lengths.argmax()]])
    same = (np.diff(piece.users) == 0) & (np.diff(piece.times) == 0)
    if piece.positions is not None:
        same &= np.diff(piece.positions) == 0
    written.ties += int((np.append(same, False) | np.insert(same, 0, False)).sum())


def _named(names: pa.Array, codes: NDArray[np.int32]) -> pa.Array:
    """Codes as a dictionary of those names alone that occur."""
    occurs = np.zeros(len(names), bool)
    occurs[codes] = True
    places = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    used = names.take(pa.array(np.flatnonzero(occurs))).cast(pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(places[codes]), used)


class Writers:
    """Parquet files that are opened when they get their first rows.

    A table is written while the next one is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.open = folder, ExitStack()
        self.writers: dict[str, pyarrow.parquet.ParquetWriter] = {}
        self.aside = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.aside.shutdown()
        with self.open:
            if self.writing and kind is None:
                self.writing.result()

    def add(self, name: str, table: pa.Table) -> None:
        """Write more rows to a file, once the rows before them are written.

        Raises:
            OSError: where the rows before them could not be written.
        """
        if self.writing:
            self.writing.result()
        if name not in self.writers:
            # Dictionaries are how texts are written fast; readers need not hear of them.
            writer = pyarrow.parquet.ParquetWriter(
                self.folder / f"{name}.parquet",
                table.schema,
                compression="zstd",
                store_schema=False,
                # Those of lists help no reader and take as long as writing them.
                write_statistics=[
                    field.name for field in table.schema if not pa.types.is_list(field.type)
                ],
            )
            self.writers[name] = self.open.enter_context(writer)
        self.writing = self.aside.submit(
            self.writers[name].write_table, table, row_group_size=ROWS_OF_GROUP
        )
