"""Item files: `.item.json`, or Parquet such as `sidtune prepare` writes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sidtune.base.errors import UserError
from sidtune.files.ids import as_ids
from sidtune.files.parquet import read_parquet
from sidtune.files.row_files import kind_of
from sidtune.files.text import read_json_object

ID_COLUMNS = ("item_id", "id")
TITLE_COLUMNS = ("title", "name")


def plain_name(name: str) -> str:
    """A column's name without what people write differently: case, blanks and signs."""
    return re.sub(r"[\W_]+", "", name).casefold()


def columns_of(records: Iterable[Any]) -> list[str]:
    """The names that records have; what is no record is passed over."""
    named = (record for record in records if isinstance(record, dict))
    return list(dict.fromkeys(str(name) for record in named for name in record))


def like_usual(names: Iterable[str], usual: Sequence[str]) -> list[str]:
    """Those of these names that are usual ones, however they are written, in the order of the usual
    ones.
    """
    plain: dict[str, list[str]] = {}
    for name in names:
        plain.setdefault(plain_name(name), []).append(name)
    return [name for each in usual for name in plain.pop(plain_name(each), ())]


def first_of(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The value of the first of these names that a record has."""
    return next((record[name] for name in names if name in record), None)


def read_records(path: Path) -> dict[str, Any]:
    """Item id → record, in the order of the file.

    Args:
        path: `.item.json` (id → object), or Parquet with the columns `item_id`, `title` and others.
            Records of JSON are as they are written; those of Parquet are dictionaries.

    Raises:
        UserError: for a file that cannot be read, or Parquet without items, without the column
            `item_id`, with broken ids, or with an id that occurs twice.
    """
    return _of_parquet(path) if kind_of(path) == ".parquet" else read_json_object(path)


def _of_parquet(path: Path) -> dict[str, Any]:
    table = read_columns(
        path, "Items are read from .item.json, or from Parquet with columns item_id and title."
    )
    return records_of(table, path)


def records_of(table: pa.Table, path: Path) -> dict[str, Any]:
    """The records of a table of items; raises as `read_records` does for Parquet."""
    name = next((name for name in ID_COLUMNS if name in table.column_names), None)
    if name is None or not table.num_rows:
        found = ", ".join(table.column_names) if table.num_rows else "no row"
        raise UserError(
            f"{path}: expected items with a column {ID_COLUMNS[0]}, found {found}",
            "Name the column so.",
        )
    try:
        given, broken = as_ids(table[name].combine_chunks())
    except pa.ArrowException as error:
        raise UserError(
            f"{path}: column {name}: {error}", "Item ids are text or whole numbers."
        ) from None
    ids = given.to_pylist()
    bad = next(
        (
            row
            for row, (item, no) in enumerate(zip(ids, broken, strict=True), 1)
            if no or item is None
        ),
        None,
    )
    if bad:
        raise UserError(
            f"{path}, row {bad}: column {name} holds no item id",
            "Item ids are text or whole numbers.",
        )
    if len(set(ids)) < len(ids):
        item, count = Counter(ids).most_common(1)[0]
        rows = [row for row, other in enumerate(ids, 1) if other == item]
        again = len(ids) - len(set(ids))
        raise UserError(
            f"{path}: {again:,} rows repeat an item id: {item} occurs in {count:,} rows, first in"
            f" rows {rows[0]} and {rows[1]}",
            "Keep one row per item.",
        )
    others = table.drop_columns([name])
    return dict(
        zip(ids, others.to_pylist() if others.num_columns else [{} for _ in ids], strict=True)
    )


def read_columns(path: Path, hint: str) -> pa.Table:
    """The table of a Parquet file whose columns have names of their own; raises as
    `read_parquet`.
    """
    table = read_parquet(path, hint)
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: the column {twice[0]!r:.80} stands twice",
            "Which one counts? Remove the other.",
        )
    return table
