"""Parses lists written as text: Python or JSON literals of plain values; nothing is executed."""

from __future__ import annotations

import ast
import re
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidtune.files.ids import number_id

# Maximum length in characters; more history than any model reads.
LONGEST = 1_000_000
# Possessive quantifiers: no backtracking. Prefixes r and u as written by Python 2.
ENTRY = re.compile(
    r"(?P<text>[uUrR]?(?:'(?:[^'\\\r\n\0]|\\.)*+'|\"(?:[^\"\\\r\n\0]|\\.)*+\"))"
    r"|(?P<whole>-?[0-9]++)(?![.eE])|(?P<number>-?[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?)"
)
BLANKS = re.compile(r"[ \t\r\n\f]*+")
# The ids of many rows may exceed the 2 GiB limit of Arrow's plain strings.
LISTS = pa.large_list(pa.large_string())
PLAIN = "expected a list of texts or whole numbers"
NUMBERS = r"^\s*\[\s*(?:[0-9]+(?:\s*,\s*[0-9]+)*)?\s*\]\s*$"


class MissingCommasError(ValueError):
    """A list without commas between its entries, as NumPy prints arrays."""


def parse_list(text: str) -> list[str]:
    """Parse a list literal; entries are returned as text, whole numbers in decimal.

    Raises:
        MissingCommasError: if a comma is missing between two entries: `['1' '2']`, which Python
            reads as `['12']`.
        ValueError: for anything but a list of strings and whole numbers.
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"the list has {len(text):,} characters, more than the maximum of {LONGEST:,}"
        )
    stripped = text.strip()
    if not stripped.startswith("[") or not stripped.endswith("]") or len(stripped) < 2:
        raise ValueError("expected a list such as [12, 7]")
    entries: list[str] = []
    missing, end = "", len(stripped) - 1
    at = _behind_blanks(stripped, 1)
    while at < end:
        found = ENTRY.match(stripped, at, end)
        entry = None if found is None else _entry(found)
        if found is None or entry is None:
            raise ValueError(missing or PLAIN)
        entries.append(entry)
        at = _behind_blanks(stripped, found.end())
        if stripped[at] == ",":
            at = _behind_blanks(stripped, at + 1)
        elif at < end:
            if not _side_by_side(stripped, found, at, end):
                raise ValueError(PLAIN)
            missing = missing or f"commas are missing, the first after {found[0]:.40}"
    if missing:
        raise MissingCommasError(missing)
    return entries


def _side_by_side(text: str, found: re.Match[str], at: int, end: int) -> bool:
    """Whether another entry starts at `at`, or NumPy's ellipsis for omitted entries."""
    # Without a blank, what follows a number is part of it, as in 1_000 or 1-2.
    apart = at > found.end() or found["text"] is not None or text[at] in "'\""
    return apart and (text.startswith("...", at) or ENTRY.match(text, at, end) is not None)


def _behind_blanks(text: str, at: int) -> int:
    found = BLANKS.match(text, at)
    assert found is not None, "no blank is a match too"
    return found.end()


def _entry(found: re.Match[str]) -> str | None:
    """The value of an entry as text; None if it is neither a string nor a whole number."""
    if found["whole"] is not None:
        return found["whole"] if found["whole"] != "-0" else "0"
    if found["number"] is not None:
        return number_id(found["number"])
    text = found["text"]
    if "\\" not in text:
        return text.lstrip("uUrR")[1:-1]
    try:
        with warnings.catch_warnings():
            # Ignore Python's warnings about unknown escapes.
            warnings.simplefilter("ignore")
            entry = str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return None
    if any("\ud800" <= character <= "\udfff" for character in entry):
        raise ValueError("the text contains half of a surrogate pair")
    return entry


def parse_lists(cells: pa.Array) -> pa.Array:
    """Parse a `large_string` column of list literals into `large_list<large_string>`.

    Columns of whole-number lists, the usual case, are parsed vectorised.

    Raises:
        CellError: the first row that is not a list of plain values.
    """
    fast = pc.fill_null(pc.match_substring_regex(cells, NUMBERS), False)
    if pc.all(fast).as_py():
        return _numbers(cells)
    slow_rows = np.flatnonzero(~fast.to_numpy(zero_copy_only=False))
    slow = pa.array([_cell(int(row), cells[int(row)].as_py()) for row in slow_rows], LISTS)
    both = pa.concat_arrays([_numbers(cells.filter(fast)), slow])
    order = np.empty(len(cells), np.int64)
    order[np.flatnonzero(fast.to_numpy(zero_copy_only=False))] = np.arange(
        len(cells) - len(slow_rows)
    )
    order[slow_rows] = np.arange(len(cells) - len(slow_rows), len(cells))
    return both.take(pa.array(order))


class CellError(ValueError):
    """An invalid cell; `row` counts from 0."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def _cell(row: int, text: str | None) -> list[str]:
    try:
        return parse_list(text or "")
    except ValueError as error:
        raise CellError(row, f"{error}, found {text!r:.80}") from None


def _numbers(cells: pa.Array) -> pa.Array:
    """Parse lists of whole numbers: strip brackets and blanks, split at commas, drop the empty
    entry of `[]`.
    """
    inner = pc.replace_substring_regex(cells.cast(pa.large_string()), r"[\s\[\]]", "")
    split = pc.split_pattern(inner, ",").cast(LISTS)
    empty = pc.equal(inner, "")
    return pc.if_else(empty, pa.scalar([], LISTS), split) if pc.any(empty).as_py() else split
