"""Lists written as text: Python or JSON literals of plain values, never anything that runs."""

from __future__ import annotations

import ast
import re
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidtune.data.ids import id_list

# A list of a million characters holds more history than any model reads; the parser's memory grows many times faster.
LONGEST = 1_000_000
# Quoted text, or all that follows a quote without an end; nothing is tried twice, however many backslashes there are.
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)", re.DOTALL)
NUMBERS = r"^\s*\[\s*(?:\d+(?:\s*,\s*\d+)*)?\s*\]\s*$"


def parse_list(text: str) -> list[str]:
    """The entries of a list literal as text; whole numbers in decimal.

    Raises:
        ValueError: for anything but a list of texts and whole numbers; nothing is ever executed.
    """
    if len(text) > LONGEST:
        raise ValueError(f"a list of {len(text):,} characters, more than {LONGEST:,}")
    stripped = text.strip()
    # The parser recurses into nested brackets; a plain list has one pair outside its quotes.
    if not stripped.startswith("[") or not stripped.endswith("]"):
        raise ValueError("expected a list such as [12, 7]")
    if QUOTED.sub("", stripped).count("[") > 2:
        raise ValueError("expected a flat list of texts or numbers")
    try:
        with warnings.catch_warnings():
            # Of escapes that Python does not know: for programmers, and with the text as it came.
            warnings.simplefilter("ignore")
            entries = id_list(ast.literal_eval(stripped))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        entries = None
    if entries is None:
        raise ValueError("expected a list of texts or whole numbers")
    if any("\ud800" <= character <= "\udfff" for entry in entries for character in entry):
        raise ValueError("expected whole characters, not half of a surrogate pair")
    return entries


def parse_lists(cells: pa.Array) -> pa.Array:
    """A column of list literals as `list<string>`; lists of whole numbers, the usual case, are read all at once.

    Raises:
        CellError: names the first row that is not a list of plain values.
    """
    fast = pc.fill_null(pc.match_substring_regex(cells, NUMBERS), False)
    if pc.all(fast).as_py():
        return _numbers(cells)
    slow_rows = np.flatnonzero(~fast.to_numpy(zero_copy_only=False))
    slow = pa.array([_cell(int(row), cells[int(row)].as_py()) for row in slow_rows], pa.list_(pa.string()))
    both = pa.concat_arrays([_numbers(cells.filter(fast)), slow])
    order = np.empty(len(cells), np.int64)
    order[np.flatnonzero(fast.to_numpy(zero_copy_only=False))] = np.arange(len(cells) - len(slow_rows))
    order[slow_rows] = np.arange(len(cells) - len(slow_rows), len(cells))
    return both.take(pa.array(order))


class CellError(ValueError):
    """A cell that is not what its column needs; `row` counts from 0."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def _cell(row: int, text: str | None) -> list[str]:
    try:
        return parse_list(text or "")
    except ValueError as error:
        raise CellError(row, f"{error}, found {text!r:.80}") from None


def _numbers(cells: pa.Array) -> pa.Array:
    """Lists of whole numbers: strip brackets and blanks, split at commas, drop the one empty entry of `[]`."""
    inner = pc.replace_substring_regex(cells, r"[\s\[\]]", "")
    split = pc.split_pattern(inner, ",")
    empty = pc.equal(inner, "")
    if not pc.any(empty).as_py():
        return split.cast(pa.list_(pa.string()))
    return pc.if_else(empty, pa.scalar([], pa.list_(pa.string())), split.cast(pa.list_(pa.string())))
