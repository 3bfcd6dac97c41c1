"""Reads interaction rows from CSV, Parquet or JSON Lines as tables of strings."""

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
# Further columns of MiniOneRec's files; never treated as misspelt names.
MINIONEREC_TEXTS = ("history_item_title", "item_title", "history_item_sid", "item_sid")
NEEDED = frozenset({*GENERIC, *MINIONEREC})
HINT = "docs/configuration.md says what rows of interactions look like."
UNIX_LINES = (
    "End every line with a line feed: write the file again with a CSV library, or convert it, for"
    " example with dos2unix, and with mac2unix where lines end with a carriage return alone."
)
# Maximum number of names in a message.
MOST_NAMES = 1_000
# List types that Arrow converts correctly.
KINDS_OF_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
NOT_WHOLE = "the number is not whole, or too large to be exact"
# Maximum rows held as text, which takes ten times the memory of positions.
ROWS_AT_ONCE = 65_536
# CSV block size; a row must fit into one block.
BLOCK_BYTES = LONGEST_RECORD


def row_batches(path: Path) -> Iterator[pa.Table]:
    """Read CSV (MiniOneRec's or generic columns), Parquet or JSONL, gzipped or not, as tables of
    schema `ROWS`.

    After the first invalid row no more tables are returned; the rest of the file is read only to
    count invalid rows.

    Raises:
        UserError: names file, row and column of a missing or invalid value.
    """
    suffix = kind_of(path)
    if suffix not in READERS:
        hint = f"Supported: {', '.join(READERS)}, each optionally with .gz."
        if suffix == ".json":
            hint += " For a file of whole histories, use data.interactions."
        raise UserError(f"{path}: unknown file type {suffix!r}", hint)
    faults = Faults(path)
    for batch in READERS[suffix](path):
        rows = as_rows(batch, faults)
        if not faults.counts:
            yield rows
    faults.refuse()


def id_list_columns(path: Path, owner: str, lists: str) -> Iterator[tuple[pa.Array, pa.Array]]:
    """A column of ids, `large_string`, and one of lists of ids, of a Parquet file, some rows at a
    time.

    Raises:
        UserError: as `row_batches`.
    """
    faults = Faults(path)
    with opened_parquet(path) as file:
        names = file.schema_arrow.names
        for name in (owner, lists):
            if names.count(name) != 1:
                raise UserError(
                    f"{path}: expected one column {name!r}{did_you_mean(name, names)}; found"
                    f" {', '.join(names)[:500]}",
                    "Whole histories are a row a user: user_id, and items, a list, oldest first.",
                )
        for batch in tables(file, path, [owner, lists], ROWS_AT_ONCE):
            owners = _text(batch[owner], owner, faults)
            values = _history(batch[lists].combine_chunks(), lists, faults)
            faults.rows += batch.num_rows
            if not faults.counts:
                yield owners.dictionary_decode(), values
    faults.refuse()


def kind_of(path: Path) -> str:
    """The suffix of a file without `.gz`."""
    return Path(path.name.removesuffix(".gz")).suffix


class Faults:
    """Invalid rows, counted over a whole file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self.first: dict[str, int] = {}
        self.counts: Counter[str] = Counter()

    def add(self, what: str, bad: NDArray[np.bool_]) -> None:
        """Count the invalid rows, `(batch,)`, of the batch that starts after `rows` rows."""
        if bad.any():
            self.first.setdefault(what, self.rows + int(bad.argmax()) + 1)
            self.counts[what] += int(bad.sum())

    def refuse(self) -> None:
        """Raise `UserError` for the first kind of fault, or if there is no row."""
        for what, row in self.first.items():
            raise UserError(
                f"{self.path}, row {row}, {what} ({self.counts[what]:,} rows in total)",
                "Remove or correct these rows; row numbers do not count the header.",
            )
        if not self.rows:
            raise UserError(
                f"{self.path} contains no rows", "Is it the right file? Write it again."
            )


def as_rows(batch: pa.Table, faults: Faults) -> pa.Table:
    """Convert a batch with the file's columns to the schema `ROWS`."""
    history_name = _history_column(batch.column_names, faults.path)
    users, target = (_text(batch[name], name, faults) for name in ("user_id", "item_id"))
    history = _history(batch[history_name].combine_chunks(), history_name, faults)
    faults.rows += batch.num_rows
    return pa.table([users, history, target], schema=ROWS)


def read_csv(path: Path, besides: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The needed columns, and those of `besides` that the file has, as strings, at most
    `ROWS_AT_ONCE` per table.
    """
    with opened(path) as stream:
        names = _header(stream.readline(LONGEST_RECORD), path)
        stream.seek(0)
        wanted = [
            "user_id",
            _history_column(names, path),
            "item_id",
            *(name for name in besides if name in names),
        ]
        try:
            reader = pyarrow.csv.open_csv(
                stream,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=wanted,
                    column_types=dict.fromkeys(wanted, pa.string()),
                    strings_can_be_null=False,
                ),
                read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
            )
            for block in reader:
                for start in range(0, block.num_rows, ROWS_AT_ONCE):
                    yield pa.table(block.slice(start, ROWS_AT_ONCE))
        except (pa.ArrowException, UnicodeDecodeError) as error:
            for _ in read_lines(path, LONGEST_RECORD):
                pass  # raises with the line number if a line is too long or not UTF-8
            # All other messages count rows without the header.
            reason = re.sub(
                r"Row #(\d+)",
                lambda found: f"row {int(found[1]) - 1}",
                " ".join(str(error).split()),
            )
            raise UserError(
                f"{path}: invalid CSV: {reason[:200]}",
                "Correct the row, or write the file again with a CSV library.",
            ) from None


def unreadable_header(path: Path, line: str, error: csv.Error) -> UserError:
    """What to say of the first line of a CSV file that cannot be read."""
    if "\r" in line.rstrip("\r\n"):
        return UserError(f"{path}: lines end with a carriage return alone", UNIX_LINES)
    return UserError(
        f"{path}: invalid CSV: {error} in the header",
        "Correct the first line of the file: it names the columns.",
    )


def _header(line: bytes, path: Path) -> list[str]:
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: the header is not UTF-8", "Convert the file to UTF-8.") from None
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise unreadable_header(path, text, error) from None


def _read_parquet(path: Path) -> Iterator[pa.Table]:
    with opened_parquet(path) as file:
        names = file.schema_arrow.names
        wanted = (
            ["user_id", _history_column(names, path), "item_id"]
            if file.metadata.num_rows
            else names
        )
        yield from tables(file, path, wanted, ROWS_AT_ONCE)


def _read_jsonl(path: Path) -> Iterator[pa.Table]:
    found: dict[str, None] = {}
    names: dict[str, None] = {}
    records = _rows_of_json(path, found)
    first = 1
    while batch := list(islice(records, ROWS_AT_ONCE)):
        _history_column(list(found), path)
        # A column of an earlier batch may be missing here; it is then null, not absent from the
        # file.
        names |= dict.fromkeys(name for record in batch for name in record)
        columns = [
            _json_column([record.get(name) for record in batch], name, path, first)
            for name in names
        ]
        yield pa.table(columns, names=list(names))
        first += len(batch)


def _rows_of_json(path: Path, found: dict[str, None]) -> Iterator[dict[str, Any]]:
    """The needed fields of each record; `found` collects all field names for messages."""
    for _, record in read_jsonl(path):
        row = {name: value for name, value in record.items() if name in NEEDED}
        found |= dict.fromkeys(record if len(found) < MOST_NAMES else row)
        yield row


def _json_column(values: list[Any], name: str, path: Path, first: int) -> pa.Array:
    """A column of rows; `first` is the number of the first row, counted from 1."""
    if name.startswith("history"):
        expected, kind, missing = "a list of item ids", LISTS, False
        found: list[Any] = list(map(id_list, values))
    else:
        expected, kind, missing = "an id", pa.large_string(), True
        found = list(map(as_id, values))
    for row, (value, one) in enumerate(zip(values, found, strict=True), start=first):
        if one is None and not (missing and value is None):
            raise UserError(
                f"{path}, row {row}, column {name}: expected {expected}, found {value!r:.60}",
                HINT,
            )
    return pa.array(found, kind)


READERS: dict[str, Callable[[Path], Iterator[pa.Table]]] = {
    ".csv": read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
}


def _history_column(names: list[str], path: Path) -> str:
    """The name of the history column, which identifies the layout; raises if a needed column is
    missing.
    """
    others = [name for name in names if name not in NEEDED and name not in MINIONEREC_TEXTS]
    expected = MINIONEREC if _is_minionerec(names, others) else GENERIC
    for name in expected:
        if name not in names:
            raise UserError(
                f"{path}: no column {name!r}{did_you_mean(name, others)}; found {', '.join(names)}",
                f"Expected {', '.join(GENERIC)}, or MiniOneRec's {', '.join(MINIONEREC)}.",
            )
        if names.count(name) > 1:
            raise UserError(f"{path}: the column {name!r} occurs twice", "Remove one of them.")
    return expected[1]


def _is_minionerec(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a file has MiniOneRec's columns, possibly misspelt; `others` are
    unrecognised names.
    """
    if MINIONEREC[1] in names or GENERIC[1] in names:
        return MINIONEREC[1] in names
    return any(name.startswith("history_item_") for name in names) or bool(
        did_you_mean(MINIONEREC[1], others)
    )


def _text(column: pa.ChunkedArray, name: str, faults: Faults) -> pa.Array:
    try:
        values, broken = coded_ids(column.combine_chunks())
    except pa.ArrowException:
        raise UserError(
            f"{faults.path}, column {name}: expected ids, found {column.type}",
            HINT,
        ) from None
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
                "Row numbers do not count the header. Write histories as lists, [12, 7]; convert"
                " NumPy arrays with tolist().",
            ) from None
    try:
        values, broken = _id_lists(values)
    except pa.ArrowException:
        raise UserError(
            f"{faults.path}, column {name}: expected lists of item ids, found {values.type}",
            HINT,
        ) from None
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    faults.add(f"column {name}: empty history", lengths == 0)
    nameless = pc.fill_null(pc.equal(values.flatten(), ""), True).to_numpy(zero_copy_only=False)
    for what, bad in ((NOT_WHOLE, broken), ("empty item id", nameless)):
        if bad.any():
            parents = pc.list_parent_indices(values).to_numpy()
            faults.add(
                f"column {name}: {what}", np.bincount(parents[bad], minlength=len(values)) > 0
            )
    return values


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _id_lists(values: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Lists of strings, and a mask of entries that are not whole numbers, `(entries,)`."""
    if not any(suits(values.type) for suits in KINDS_OF_LISTS):
        raise pa.ArrowTypeError(f"{values.type} is not a list type")
    lists = values.cast(pa.large_list(values.type.value_type))
    ids, broken = as_ids(lists.flatten())
    offsets = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0))])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), ids), broken
