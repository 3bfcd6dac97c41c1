"""Interaction rows: one Arrow table whatever the file, then item positions."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from sidtune.data.catalogue import Catalogue
from sidtune.data.files import read_bytes, read_jsonl, read_text
from sidtune.data.literals import CellError, parse_list, parse_lists
from sidtune.errors import UserError, did_you_mean
from sidtune.ragged import Ragged

ROWS = pa.schema([("user_id", pa.string()), ("history", pa.list_(pa.string())), ("target", pa.string())])
GENERIC = ("user_id", "history", "item_id")
MINIONEREC = ("user_id", "history_item_id", "item_id")
SHOWN = 3
# A row must fit into one block, and titles may be very long.
BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Rows:
    """Interaction rows against a catalogue.

    Args:
        users: `(n,)` user ids.
        history: n lists of catalogue positions, oldest first, none of them empty.
        target: `(n,)` catalogue positions.
    """

    users: pa.Array
    history: Ragged
    target: NDArray[np.int32]

    def take(self, chosen: NDArray[np.integer]) -> Rows:
        """The rows at these places, in that order."""
        return Rows(self.users.take(pa.array(chosen)), self.history.take(chosen), self.target[chosen])


@dataclass(frozen=True)
class Disagreement:
    """A cell that says something else than the catalogue; `row` counts from 1, the header left out."""

    row: int
    column: str
    found: str
    expected: str


def drawn(count: int, limit: int | None, seed: int) -> NDArray[np.int64]:
    """At most `limit` of `count` rows, ascending; the same for the same seed."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def read_rows(path: Path) -> pa.Table:
    """Read CSV (MiniOneRec's or our columns), Parquet or JSONL, gzipped or not, as a table of schema `ROWS`.

    Raises:
        UserError: names file, row and column of what is missing or of another type.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in READERS:
        raise UserError(f"{path}: unknown kind of file {suffix!r}", f"Known: {', '.join(READERS)}, each also with .gz.")
    table = READERS[suffix](path)
    if not table.num_rows:
        raise UserError(f"{path} holds no rows")
    history_name = _history_column(table.column_names, path)
    users, target = (_text(table[name], name, path) for name in ("user_id", "item_id"))
    history = _history(table[history_name].combine_chunks(), history_name, path)
    return pa.table([users, history, target], schema=ROWS)


def resolve_rows(table: pa.Table, catalogue: Catalogue, path: Path) -> Rows:
    """Replace item ids by catalogue positions.

    Raises:
        UserError: for items that the catalogue does not have, with the first rows that mention them.
    """
    history = table["history"].combine_chunks()
    flat, offsets = history.flatten(), history.offsets.to_numpy().astype(np.int64)
    items = catalogue.positions(flat)
    target = catalogue.positions(table["target"].combine_chunks())
    row_of = np.repeat(np.arange(table.num_rows), np.diff(offsets))
    unknown = np.unique(np.concatenate([row_of[items < 0], np.flatnonzero(target < 0)]))
    if len(unknown):
        names = flat.filter(pa.array(items < 0)).to_pylist() + table["target"].filter(pa.array(target < 0)).to_pylist()
        raise UserError(
            f"{path}: {len(unknown):,} rows mention items that have no SID: {_some(sorted(set(names)))} "
            f"(first in row {unknown[0] + 1})",
            "Add them to items and index, or remove these rows.",
        )
    return Rows(table["user_id"].combine_chunks(), Ragged(items, offsets - offsets[0]), target)


def disagreements(path: Path, catalogue: Catalogue) -> list[Disagreement]:
    """Cells of a MiniOneRec CSV whose titles or SIDs are not those of the catalogue; none for other files."""
    if Path(path.name.removesuffix(".gz")).suffix != ".csv":
        return []
    table = _read_csv(path, every_column=True)
    if "history_item_id" not in table.column_names:
        return []
    rows = resolve_rows(read_rows(path), catalogue, path)
    sids = ["".join(sid) for sid in catalogue.sids]
    found: list[Disagreement] = []
    for name, texts in (("item_title", catalogue.titles), ("item_sid", sids)):
        if name in table.column_names:
            expected = [[texts[item]] for item in rows.target]
            found += _differing([[cell] for cell in table[name].to_pylist()], expected, name)
        listed = f"history_{name}"
        if listed in table.column_names:
            expected = [[texts[item] for item in rows.history[row]] for row in range(table.num_rows)]
            found += _differing([_entries(cell) for cell in table[listed].to_pylist()], expected, listed)
    return sorted(found, key=lambda entry: entry.row)


def _differing(cells: Sequence[list[str]], expected: Sequence[list[str]], column: str) -> list[Disagreement]:
    return [
        Disagreement(
            row + 1, column, str(cell if len(cell) != 1 else cell[0]), str(right if len(right) != 1 else right[0])
        )
        for row, (cell, right) in enumerate(zip(cells, expected, strict=True))
        if cell != right
    ]


def _entries(cell: str) -> list[str]:
    try:
        return parse_list(cell)
    except ValueError:
        return [cell]


def _read_csv(path: Path, every_column: bool = False) -> pa.Table:
    """The columns that rows are made of, or all of them, as text."""
    text = read_bytes(path)
    names = _header(text, path)
    if not every_column:
        names = ["user_id", _history_column(names, path), "item_id"]
    options = pyarrow.csv.ConvertOptions(
        include_columns=names, column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    try:
        return pyarrow.csv.read_csv(
            io.BytesIO(text),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=options,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        read_text(path)  # says where, when the bytes are not UTF-8
        raise UserError(f"{path}: not a readable CSV: {' '.join(str(error).split())[:200]}") from None


def _header(text: bytes, path: Path) -> list[str]:
    line = text.split(b"\n", 1)[0].rstrip(b"\r")
    try:
        return [name.strip('"') for name in line.decode("utf-8").split(",")]
    except UnicodeDecodeError:
        raise UserError(f"{path}: the header is not UTF-8") from None


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pyarrow.parquet.read_table(io.BytesIO(read_bytes(path)))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error)[:200]}") from None


def _read_jsonl(path: Path) -> pa.Table:
    records = [
        {name: value for name, value in record.items() if name in {*GENERIC, *MINIONEREC}}
        for _, record in read_jsonl(path)
    ]
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = [_json_column([record.get(name) for record in records], name, path) for name in names]
    return pa.table(columns, names=names)


def _json_column(values: list[object], name: str, path: Path) -> pa.Array:
    if name.startswith("history"):
        for row, value in enumerate(values, start=1):
            if not isinstance(value, list) or not all(isinstance(entry, str | int) for entry in value):
                raise UserError(f"{path}, row {row}, column {name}: expected a list of item ids, found {value!r:.60}")
        return pa.array([[str(entry) for entry in value] for value in values], pa.list_(pa.string()))  # type: ignore[attr-defined]
    return pa.array([None if value is None else str(value) for value in values], pa.string())


READERS: dict[str, Callable[[Path], pa.Table]] = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_jsonl}


def _history_column(names: list[str], path: Path) -> str:
    """Which layout a file has, by its history column; every needed column must be there."""
    expected = MINIONEREC if "history_item_id" in names else GENERIC
    for name in expected:
        if name not in names:
            raise UserError(
                f"{path}: no column {name!r}{did_you_mean(name, names)}; found {', '.join(names)}",
                f"Expected {', '.join(GENERIC)}, or MiniOneRec's {', '.join(MINIONEREC)}.",
            )
    return expected[1]


def _text(column: pa.ChunkedArray, name: str, path: Path) -> pa.Array:
    values = column.combine_chunks()
    if not pa.types.is_string(values.type):
        try:
            values = values.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{path}, column {name}: expected ids, found {values.type}") from None
    empty = pc.fill_null(pc.equal(values, ""), True).to_numpy(zero_copy_only=False)
    _refuse(empty, f"column {name}: empty", path)
    return values


def _history(values: pa.Array, name: str, path: Path) -> pa.Array:
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        try:
            values = parse_lists(values.cast(pa.string()))
        except CellError as error:
            raise UserError(
                f"{path}, row {error.row + 1}, column {name}: {error}", "Rows are counted without the header."
            ) from None
    try:
        values = values.cast(pa.list_(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(f"{path}, column {name}: expected lists of item ids, found {values.type}") from None
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    _refuse(lengths == 0, f"column {name}: empty history", path)
    return values


def _refuse(bad: NDArray[np.bool_], what: str, path: Path) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        raise UserError(
            f"{path}, row {rows[0] + 1}, {what} ({len(rows):,} rows in all)",
            "Remove these rows or fill them in; rows are counted without the header.",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
