"""Files of interaction rows: CSV, Parquet or JSON Lines in, one table of texts after another out."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from sidtune.base.errors import UserError, did_you_mean
from sidtune.files.ids import CODES, as_id, as_ids, coded_ids, empty_ids, id_list
from sidtune.files.literals import LISTS, CellError, parse_lists
from sidtune.files.parquet import opened_parquet, tables
from sidtune.files.text import LONGEST_RECORD, opened, read_jsonl, read_lines

ROWS = pa.schema([("user_id", CODES), ("history", LISTS), ("target", CODES)])
GENERIC = ("user_id", "history", "item_id")
MINIONEREC = ("user_id", "history_item_id", "item_id")
# What MiniOneRec's files hold besides; no such column is another one misspelt.
MINIONEREC_TEXTS = ("history_item_title", "item_title", "history_item_sid", "item_sid")
NEEDED = frozenset({*GENERIC, *MINIONEREC})
# A message lists no more of them.
MOST_NAMES = 1_000
# Of Arrow's lists, those that it turns into one another soundly.
KINDS_OF_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
NOT_WHOLE = "a number that is not whole, or too large to tell its neighbours apart"
# As text a row takes ten times the memory that it takes as positions: never more of them than this at once.
ROWS_AT_ONCE = 65_536
# A row must fit into one block, and titles may be very long.
BLOCK_BYTES = LONGEST_RECORD


def row_batches(path: Path) -> Iterator[pa.Table]:
    """Read CSV (MiniOneRec's or our columns), Parquet or JSONL, gzipped or not, as tables of schema `ROWS`.

    After the first bad row nothing more is handed out: what is left of the file is only counted.

    Raises:
        UserError: names file, row and column of what is missing or of another type.
    """
    suffix = kind_of(path)
    if suffix not in READERS:
        hint = f"Known: {', '.join(READERS)}, each also with .gz."
        if suffix == ".json":
            hint += " A file of whole histories, user by user, is named by data.interactions."
        raise UserError(f"{path}: unknown kind of file {suffix!r}", hint)
    faults = Faults(path)
    for batch in READERS[suffix](path):
        rows = as_rows(batch, faults)
        if not faults.counts:
            yield rows
    faults.refuse()


def kind_of(path: Path) -> str:
    """The suffix that says how a file is written, `.gz` aside."""
    return Path(path.name.removesuffix(".gz")).suffix


class Faults:
    """Rows that lack something, counted over a whole file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self.first: dict[str, int] = {}
        self.counts: Counter[str] = Counter()

    def add(self, what: str, bad: NDArray[np.bool_]) -> None:
        """Mark the bad rows of the batch that starts after `rows` rows, `(batch,)`."""
        if bad.any():
            self.first.setdefault(what, self.rows + int(bad.argmax()) + 1)
            self.counts[what] += int(bad.sum())

    def refuse(self) -> None:
        """Say what was found first, and that there was anything to read at all."""
        for what, row in self.first.items():
            raise UserError(
                f"{self.path}, row {row}, {what} ({self.counts[what]:,} rows in all)",
                "Remove these rows or fill them in; rows are counted without the header.",
            )
        if not self.rows:
            raise UserError(f"{self.path} holds no rows")


def as_rows(batch: pa.Table, faults: Faults) -> pa.Table:
    """A batch of a file's own columns in the schema `ROWS`."""
    history_name = _history_column(batch.column_names, faults.path)
    users, target = (_text(batch[name], name, faults) for name in ("user_id", "item_id"))
    history = _history(batch[history_name].combine_chunks(), history_name, faults)
    faults.rows += batch.num_rows
    return pa.table([users, history, target], schema=ROWS)


def read_csv(path: Path, besides: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The columns that rows are made of, and those of `besides` that the file has, as text, `ROWS_AT_ONCE` at most."""
    with opened(path) as stream:
        names = _header(stream.readline(LONGEST_RECORD), path)
        stream.seek(0)
        wanted = ["user_id", _history_column(names, path), "item_id", *(name for name in besides if name in names)]
        try:
            reader = pyarrow.csv.open_csv(
                stream,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
                ),
                read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
            )
            for block in reader:
                for start in range(0, block.num_rows, ROWS_AT_ONCE):
                    yield pa.table(block.slice(start, ROWS_AT_ONCE))
        except (pa.ArrowException, UnicodeDecodeError) as error:
            for _ in read_lines(path, LONGEST_RECORD):
                pass  # says where, when a line is too long or the bytes are not UTF-8
            # Everybody else counts rows without the header.
            reason = re.sub(r"Row #(\d+)", lambda found: f"row {int(found[1]) - 1}", " ".join(str(error).split()))
            raise UserError(f"{path}: not a readable CSV: {reason[:200]}") from None


def _header(line: bytes, path: Path) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8").rstrip("\r\n")]), [])
    except UnicodeDecodeError:
        raise UserError(f"{path}: the header is not UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a readable CSV: {error} in the header") from None


def _read_parquet(path: Path) -> Iterator[pa.Table]:
    with opened_parquet(path) as file:
        names = file.schema_arrow.names
        wanted = ["user_id", _history_column(names, path), "item_id"] if file.metadata.num_rows else names
        yield from tables(file, path, wanted, ROWS_AT_ONCE)


def _read_jsonl(path: Path) -> Iterator[pa.Table]:
    found: dict[str, None] = {}
    names: dict[str, None] = {}
    records = _rows_of_json(path, found)
    first = 1
    while batch := list(islice(records, ROWS_AT_ONCE)):
        _history_column(list(found), path)
        # A column that an earlier batch has is missing from this one's rows, not from the file.
        names |= dict.fromkeys(name for record in batch for name in record)
        columns = [_json_column([record.get(name) for record in batch], name, path, first) for name in names]
        yield pa.table(columns, names=list(names))
        first += len(batch)


def _rows_of_json(path: Path, found: dict[str, None]) -> Iterator[dict[str, Any]]:
    """The fields that rows are made of, record by record; `found` gathers the names of all fields, for messages."""
    for _, record in read_jsonl(path):
        row = {name: value for name, value in record.items() if name in NEEDED}
        found |= dict.fromkeys(record if len(found) < MOST_NAMES else row)
        yield row


def _json_column(values: list[Any], name: str, path: Path, first: int) -> pa.Array:
    """A column of the rows from `first` on, which is counted from 1."""
    if name.startswith("history"):
        expected, kind, missing = "a list of item ids", LISTS, False
        found: list[Any] = list(map(id_list, values))
    else:
        expected, kind, missing = "an id", pa.large_string(), True
        found = list(map(as_id, values))
    for row, (value, one) in enumerate(zip(values, found, strict=True), start=first):
        if one is None and not (missing and value is None):
            raise UserError(f"{path}, row {row}, column {name}: expected {expected}, found {value!r:.60}")
    return pa.array(found, kind)


READERS: dict[str, Callable[[Path], Iterator[pa.Table]]] = {
    ".csv": read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
}


def _history_column(names: list[str], path: Path) -> str:
    """Which layout a file has, by its history column; every needed column must be there."""
    others = [name for name in names if name not in NEEDED and name not in MINIONEREC_TEXTS]
    expected = MINIONEREC if _is_minionerec(names, others) else GENERIC
    for name in expected:
        if name not in names:
            raise UserError(
                f"{path}: no column {name!r}{did_you_mean(name, others)}; found {', '.join(names)}",
                f"Expected {', '.join(GENERIC)}, or MiniOneRec's {', '.join(MINIONEREC)}.",
            )
        if names.count(name) > 1:
            raise UserError(f"{path}: the column {name!r} stands twice", "Which one counts? Remove the other.")
    return expected[1]


def _is_minionerec(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a file has MiniOneRec's columns, or is meant to; `others` are those with names of their own."""
    if MINIONEREC[1] in names or GENERIC[1] in names:
        return MINIONEREC[1] in names
    return any(name.startswith("history_item_") for name in names) or bool(did_you_mean(MINIONEREC[1], others))


def _text(column: pa.ChunkedArray, name: str, faults: Faults) -> pa.Array:
    try:
        values, broken = coded_ids(column.combine_chunks())
    except pa.ArrowException:
        raise UserError(f"{faults.path}, column {name}: expected ids, found {column.type}") from None
    faults.add(f"column {name}: {NOT_WHOLE}", broken)
    faults.add(f"column {name}: empty", empty_ids(values))
    return values


def _history(values: pa.Array, name: str, faults: Faults) -> pa.Array:
    if _is_text(values.type):
        try:
            values = parse_lists(values.cast(pa.large_string()))
        except CellError as error:
            raise UserError(
                f"{faults.path}, row {faults.rows + error.row + 1}, column {name}: {error}",
                "Rows are counted without the header. Write histories as lists, [12, 7]; NumPy arrays become lists "
                "by their method tolist().",
            ) from None
    try:
        values, broken = _id_lists(values)
    except pa.ArrowException:
        raise UserError(f"{faults.path}, column {name}: expected lists of item ids, found {values.type}") from None
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    faults.add(f"column {name}: empty history", lengths == 0)
    nameless = pc.fill_null(pc.equal(values.flatten(), ""), True).to_numpy(zero_copy_only=False)
    for what, bad in ((NOT_WHOLE, broken), ("empty item id", nameless)):
        if bad.any():
            parents = pc.list_parent_indices(values).to_numpy()
            faults.add(f"column {name}: {what}", np.bincount(parents[bad], minlength=len(values)) > 0)
    return values


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _id_lists(values: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Lists as lists of texts, and which of all their entries are numbers that are not whole, `(entries,)`."""
    if not any(suits(values.type) for suits in KINDS_OF_LISTS):
        raise pa.ArrowTypeError(f"{values.type} is no type of lists")
    lists = values.cast(pa.large_list(values.type.value_type))
    ids, broken = as_ids(lists.flatten())
    offsets = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0))])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), ids), broken
