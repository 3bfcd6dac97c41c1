"""Finds titles and SIDs in rows that differ from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Rows, resolve_rows
from sidtune.files.literals import parse_list
from sidtune.files.row_files import Faults, as_rows, kind_of, read_csv


@dataclass(frozen=True)
class Disagreement:
    """A cell that differs from the catalogue; `row` counts from 1, without the header."""

    row: int
    column: str
    found: str
    expected: str


def disagreements(path: Path, catalogue: Catalogue) -> Iterator[Disagreement]:
    """Cells of a MiniOneRec CSV whose titles or SIDs differ from the catalogue, row by row; none
    for other files.
    """
    if kind_of(path) != ".csv":
        return
    texts = {"item_sid": ["".join(sid) for sid in catalogue.sids]}
    if catalogue.has_texts:
        texts = {"item_title": catalogue.titles, **texts}
    # If the index contains numbers, the rows may contain numbers too.
    codes = {"item_sid": list(map(str, catalogue.codes))} if catalogue.codes else {}
    columns = [_Column(name, entries, False, codes.get(name)) for name, entries in texts.items()]
    columns += [
        _Column(f"history_{name}", entries, True, codes.get(name))
        for name, entries in texts.items()
    ]
    faults = Faults(path)
    for batch in read_csv(path, [column.name for column in columns]):
        if "history_item_id" not in batch.column_names:
            return
        before = faults.rows
        rows = resolve_rows(as_rows(batch, faults), catalogue, path)
        given = [column for column in columns if column.name in batch.column_names]
        found = [
            entry
            for column in given
            for entry in column.differing(batch[column.name], rows, before)
        ]
        yield from sorted(found, key=lambda entry: entry.row)


class _Column:
    """A column that repeats texts of the catalogue.

    Args:
        name: column name in the file.
        texts: expected text of each item.
        listed: whether a cell lists the texts of the history, rather than the text of the target.
        codes: equivalent lists of numbers, if any.
    """

    def __init__(
        self, name: str, texts: Sequence[str], listed: bool, codes: Sequence[str] | None = None
    ) -> None:
        self.name, self.texts, self.listed, self.codes = name, texts, listed, codes
        self.written = pa.array(
            [repr(text) for text in texts] if listed else texts, pa.large_string()
        )

    def differing(self, cells: pa.ChunkedArray, rows: Rows, before: int) -> Iterator[Disagreement]:
        """The differing cells of some rows, which are preceded by `before` rows of the file."""
        items = rows.history if self.listed else Ragged.column(rows.target)
        # Most lists are formatted as by Python; only the others need parsing.
        unlike = pc.not_equal(cells.combine_chunks(), self._as_written(items)).to_numpy(
            zero_copy_only=False
        )
        for row in np.flatnonzero(unlike).tolist():
            cell = cells[row].as_py()
            found, expected = (
                _entries(cell) if self.listed else [cell],
                [self.texts[item] for item in items[row]],
            )
            if found != expected and not self._says_codes(cell, items[row]):
                yield Disagreement(before + row + 1, self.name, _shown(found), _shown(expected))

    def _says_codes(self, cell: str, items: NDArray[np.int32]) -> bool:
        """Whether a cell contains the items' codes, with any spacing."""
        if self.codes is None:
            return False
        listed = ",".join(self.codes[item] for item in items)
        return "".join(cell.split()) == "".join((f"[{listed}]" if self.listed else listed).split())

    def _as_written(self, items: Ragged) -> pa.Array:
        texts = self.written.take(pa.array(items.values))
        if not self.listed:
            return texts
        lists = pa.LargeListArray.from_arrays(pa.array(items.offsets), texts)
        comma, opened, closed, nothing = (
            pa.scalar(text, pa.large_string()) for text in (", ", "[", "]", "")
        )
        return pc.binary_join_element_wise(opened, pc.binary_join(lists, comma), closed, nothing)


def _entries(cell: str) -> list[str]:
    try:
        return parse_list(cell)
    except ValueError:
        return [cell]


def _shown(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else str(texts)
