"""Reads user preferences written as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from sidtune.base.errors import UserError, did_you_mean
from sidtune.files.ids import as_id, id_list
from sidtune.files.row_files import ROWS
from sidtune.files.text import read_json, read_jsonl

HINT = "docs/configuration.md shows a preference record."
PREFERENCES = pa.schema([*ROWS, ("preference", pa.string()), ("split", pa.string())])
VALID_NAMES = ("valid", "val", "validation", "eval", "dev")
SPLIT_NAMES = ("train", *VALID_NAMES, "test")


def read_preferences(path: Path) -> pa.Table:
    """Read records `user, user_preference, split, context: {history_items, target_item}` from JSON
    or JSONL.

    Raises:
        UserError: names file, record and field of a missing or invalid value.
    """
    rows = [_row(record, f"{path}, record {number}") for number, record in _records(path)]
    if not rows:
        raise UserError(f"{path} contains no records", HINT)
    return pa.Table.from_pylist(rows, PREFERENCES)


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        return read_jsonl(path)
    value = read_json(path)
    if not isinstance(value, list):
        raise UserError(
            f"{path}: expected a list of records at the top level",
            HINT,
        )
    return enumerate(value, start=1)


def _row(record: Any, where: str) -> dict[str, Any]:
    context = _field(record, "context", where)
    items = _field(context, "history_items", where)
    history = id_list(items)
    if not history or "" in history:
        raise UserError(
            f"{where}: context.history_items: expected a list of item ids, found {items!r:.60}",
            HINT,
        )
    preference = _field(record, "user_preference", where)
    if not isinstance(preference, str) or not preference.strip():
        raise UserError(
            f"{where}: user_preference: expected text, found {preference!r:.60}",
            HINT,
        )
    return {
        "user_id": _identifier(record, "user", where),
        "history": history,
        "target": _identifier(context, "target_item", where),
        "preference": preference,
        "split": _split(record, where),
    }


def _field(record: Any, name: str, where: str) -> Any:
    if not isinstance(record, dict) or name not in record:
        raise UserError(
            f"{where}: missing field {name!r} in {record!r:.60}",
            HINT,
        )
    return record[name]


def _identifier(record: Any, name: str, where: str) -> str:
    value = _field(record, name, where)
    found = as_id(value)
    if not found:
        raise UserError(
            f"{where}: {name}: expected an id, found {value!r:.60}",
            HINT,
        )
    return found


def _split(record: Any, where: str) -> str:
    """The split of a record; train by default, and unknown names are errors."""
    split = record.get("split", "train")
    if split not in SPLIT_NAMES:
        near = did_you_mean(split, SPLIT_NAMES) if isinstance(split, str) else ""
        message = f"{where}: split: expected the name of a split, found {split!r:.60}{near}"
        raise UserError(message, f"Known: {', '.join(SPLIT_NAMES)}; omit it for train.")
    return str(split)
