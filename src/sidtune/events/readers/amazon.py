"""Amazon Reviews of 2014, 2018 and 2023 as downloaded: JSON Lines, in 2014 some files of Python
literals.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from sidtune.base.errors import UserError
from sidtune.events.readers.format import record_tables
from sidtune.files.ids import number_text
from sidtune.files.text import LONGEST_RECORD, parse_json, read_lines

HINT = "Is it a file of this data set? If it is, download it again."
EVENTS = ("user", "item", "rating", "time")
# Each in the order of preference: 2023 tells variants of a product apart by `asin`, and recommends
# their parent.
NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "reviewerID"),
    "item": ("parent_asin", "asin"),
    "rating": ("rating", "overall"),
    "time": ("timestamp", "unixReviewTime"),
}
ITEMS = ("id", "title", "brand", "categories", "description")
TEXTS: Mapping[str, tuple[str, ...]] = {
    "id": ("parent_asin", "asin"),
    "title": ("title",),
    "brand": ("brand", "store"),
    "categories": ("categories", "category"),
    "description": ("description", "feature", "features"),
}
# Python's parser takes memory many times a text's length: a description is no longer than this.
LONGEST_LITERAL = 1 << 20


def reviews(path: Path) -> Iterator[pa.Table]:
    """Who reviewed what and when; raises as `_records`."""
    return record_tables(
        ({role: _first(record, NAMES[role]) for role in EVENTS} for record in _records(path)),
        EVENTS,
    )


def products(path: Path) -> Iterator[pa.Table]:
    """The texts of products; lists are joined by commas. Raises as `_records`."""
    return record_tables(
        ({name: _first(record, TEXTS[name]) for name in ITEMS} for record in _records(path)), ITEMS
    )


def first_record(path: Path) -> dict[str, Any]:
    """The record of the first line, which shows what a file holds; empty if there is none. Raises
    as `_records`.
    """
    return next(_records(path), {})


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((text for name in names if (text := plain_text(record.get(name)))), None)


def plain_text(value: Any) -> str:
    """Any value of a record as text: lists, also lists of lists, joined by commas; nothing for
    null and NaN.
    """
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(plain_text, value)))
    if isinstance(value, dict):
        return ", ".join(
            f"{name}: {text}" for name, one in value.items() if (text := plain_text(one))
        )
    return "" if value is None else str(value).strip()


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The record of each line.

    Raises:
        UserError: names the line that is no record.
    """
    for number, line in enumerate(read_lines(path, LONGEST_RECORD), start=1):
        if line.strip():
            record = _record(line.strip(), f"{path}, line {number}")
            if not isinstance(record, dict):
                raise UserError(
                    f"{path}, line {number}: expected a record, found {line!r:.60}",
                    HINT,
                )
            yield record


def _record(line: str, where: str) -> Any:
    if "\\ud" in line.lower():
        # Half a character, perhaps, which no file takes.
        return parse_json(line, where)
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        pass
    if line.startswith("{'"):
        return _literal(line, where)
    # Says what is wrong, and where.
    return parse_json(line, where)


def _literal(line: str, where: str) -> Any:
    """A dictionary as Python prints it; only literals are read, and nothing runs."""
    if len(line) > LONGEST_LITERAL:
        raise UserError(
            f"{where}: a Python literal of {len(line):,} characters, more than {LONGEST_LITERAL:,}",
            HINT,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(line)
        str(value).encode()
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise UserError(
            f"{where}: neither JSON nor a Python literal: {str(error)[:100]}",
            "Write the file as JSON Lines.",
        ) from None
    return value
