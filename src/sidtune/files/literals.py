"""Lists written as text: Python or JSON literals of plain values, never anything that runs."""

from __future__ import annotations

import ast
import re
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidtune.files.ids import number_id

# A list of a million characters holds more history than any model reads.
LONGEST = 1_000_000
# Nothing is tried twice, however many backslashes there are. Raw and Unicode texts are what Python 2 wrote.
ENTRY = re.compile(
    r"(?P<text>[uUrR]?(?:'(?:[^'\\\r\n\0]|\\.)*+'|\"(?:[^\"\\\r\n\0]|\\.)*+\"))"
    r"|(?P<whole>-?[0-9]++)(?![.eE])|(?P<number>-?[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?)"
)
BLANKS = re.compile(r"[ \t\r\n\f]*+")
# Of many rows their ids may be more than the 2 GiB that Arrow's plain texts end at.
LISTS = pa.large_list(pa.large_string())
PLAIN = "expected a list of texts or whole numbers"
NUMBERS = r"^\s*\[\s*(?:[0-9]+(?:\s*,\s*[0-9]+)*)?\s*\]\s*$"


class MissingCommasError(ValueError):
    """A list whose entries stand side by side, as NumPy prints its arrays."""


def parse_list(text: str) -> list[str]:
    """The entries of a list literal as text; whole numbers in decimal.

    Raises:
        MissingCommasError: where no comma stands between two entries: `['1' '2']`, which Python reads as `['12']`.
        ValueError: for anything but a list of texts and whole numbers; nothing is ever executed.
    """
    if len(text) > LONGEST:
        raise ValueError(f"a list of {len(text):,} characters, more than {LONGEST:,}")
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
            missing = missing or f"commas are missing, the first one behind {found[0]:.40}"
    if missing:
        raise MissingCommasError(missing)
    return entries


def _side_by_side(text: str, found: re.Match[str], at: int, end: int) -> bool:
    """Whether another entry stands at `at`, or the dots that NumPy leaves the middle out with."""
    # Without blanks between them, what follows a number belongs to it, as in 1_000 or 1-2.
    apart = at > found.end() or found["text"] is not None or text[at] in "'\""
    return apart and (text.startswith("...", at) or ENTRY.match(text, at, end) is not None)


def _behind_blanks(text: str, at: int) -> int:
    found = BLANKS.match(text, at)
    assert found is not None, "no blank is a match too"
    return found.end()


def _entry(found: re.Match[str]) -> str | None:
    """What an entry stands for; None where it is no text and no whole number."""
    if found["whole"] is not None:
        return found["whole"] if found["whole"] != "-0" else "0"
    if found["number"] is not None:
        return number_id(found["number"])
    text = found["text"]
    if "\\" not in text:
        return text.lstrip("uUrR")[1:-1]
    try:
        with warnings.catch_warnings():
            # Of escapes that Python does not know: for programmers, and with the text as it came.
            warnings.simplefilter("ignore")
            entry = str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return None
    if any("\ud800" <= character <= "\udfff" for character in entry):
        raise ValueError("expected whole characters, not half of a surrogate pair")
    return entry


def parse_lists(cells: pa.Array) -> pa.Array:
    """A column of list literals, `large_string`, as `large_list<large_string>`; lists of whole numbers, the usual case,
    are read all at once.

    Raises:
        CellError: names the first row that is not a list of plain values.
    """
    fast = pc.fill_null(pc.match_substring_regex(cells, NUMBERS), False)
    if pc.all(fast).as_py():
        return _numbers(cells)
    slow_rows = np.flatnonzero(~fast.to_numpy(zero_copy_only=False))
    slow = pa.array([_cell(int(row), cells[int(row)].as_py()) for row in slow_rows], LISTS)
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
    inner = pc.replace_substring_regex(cells.cast(pa.large_string()), r"[\s\[\]]", "")
    split = pc.split_pattern(inner, ",").cast(LISTS)
    empty = pc.equal(inner, "")
    return pc.if_else(empty, pa.scalar([], LISTS), split) if pc.any(empty).as_py() else split
