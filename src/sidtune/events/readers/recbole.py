"""RecBole's atomic files, `.inter` and `.item`: tab-separated, with a type behind each name:
`user_id:token`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from sidtune.base.errors import UserError
from sidtune.events.readers.format import text_tables
from sidtune.files.text import LONGEST_RECORD, read_lines

TYPES = ("token", "token_seq", "float", "float_seq")


def tables(path: Path) -> Iterator[pa.Table]:
    """The rows of an atomic file as text; the columns lose their types.

    Raises:
        UserError: for a header without types, and for a line of another number of fields.
    """
    lines = read_lines(path, LONGEST_RECORD)
    header = next(lines).rstrip("\r\n").split("\t")
    names = [_name(column, path) for column in header]
    return text_tables(_rows(lines, len(names), path), names)


def _name(column: str, path: Path) -> str:
    name, colon, kind = column.rpartition(":")
    if not colon or kind not in TYPES:
        raise UserError(
            f"{path}: {column!r:.80} in the header has no type of RecBole's: {', '.join(TYPES)}",
            "Atomic files begin with a line such as user_id:token, item_id:token, timestamp:float,"
            " tab-separated.",
        )
    return name


def _rows(lines: Iterator[str], width: int, path: Path) -> Iterator[list[str]]:
    for number, line in enumerate(lines, start=2):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if len(fields) != width:
            raise UserError(
                f"{path}, line {number}: {len(fields)} fields, and the header has {width}",
                "Correct the line: fields are separated by tabs.",
            )
        yield fields
