"""LC-Rec's and S3-Rec's files: a line `user item item …`, oldest first, or LC-Rec's `.inter.json`
and `.item.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from sidtune.base.errors import UserError
from sidtune.events.readers.amazon import plain_text
from sidtune.events.readers.format import record_tables, text_tables
from sidtune.files.ids import id_list
from sidtune.files.row_files import kind_of
from sidtune.files.text import LONGEST_RECORD, read_json_object, read_lines

EVENTS = ("user", "item", "position")


def sequences(path: Path) -> Iterator[pa.Table]:
    """Each item of each user, with its place in the user's list.

    Raises:
        UserError: for a user who stands twice, since the order of the two lists is not known.
    """
    rows = (
        (user, item, str(place)) for user, items in _users(path) for place, item in enumerate(items)
    )
    return text_tables(rows, EVENTS)


def items(path: Path) -> Iterator[pa.Table]:
    """LC-Rec's `.item.json`: id → record; its fields are columns. Or S3-Rec's attributes: id →
    numbers, whose names are not known; they are words of a title.
    """
    given = read_json_object(path)
    records = {item: _record(path, item, value) for item, value in given.items()}
    names = list(
        dict.fromkeys(name for record in records.values() for name in record if name != "id")
    )
    rows = (
        {name: plain_text(value) for name, value in record.items()} | {"id": item}
        for item, record in records.items()
    )
    return record_tables(rows, ["id", *names])


def _record(path: Path, item: str, value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    attributes = id_list(value)
    if attributes is None:
        raise UserError(
            f"{path}: item {item}: expected an object, or a list of attributes, found"
            f" {value!r:.60}",
            'Each item has an object of its texts: {"7": {"title": …}}.',
        )
    words = [f"a{name}" for name in attributes]
    return {"title": " ".join(words) or f"item {item}"}


def _users(path: Path) -> Iterator[tuple[str, list[str]]]:
    seen: set[str] = set()
    for user, items in _of_object(path) if kind_of(path) == ".json" else _of_lines(path):
        if user in seen:
            raise UserError(
                f"{path}: user {user} stands twice", "Join the two lists in time order."
            )
        seen.add(user)
        yield user, items


def _of_object(path: Path) -> Iterator[tuple[str, list[str]]]:
    for user, given in read_json_object(path).items():
        found = id_list(given)
        if found is None:
            raise UserError(
                f"{path}: user {user}: expected a list of item ids, oldest first, found"
                f" {given!r:.60}",
                'Each user has a list of item ids: {"u1": [7, 8, 9]}.',
            )
        yield user, found


def _of_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_lines(path, LONGEST_RECORD), start=1):
        fields = line.split()
        if len(fields) == 1:
            raise UserError(
                f"{path}, line {number}: user {fields[0]:.60} has no items", "Remove the line."
            )
        if fields:
            yield fields[0], fields[1:]
