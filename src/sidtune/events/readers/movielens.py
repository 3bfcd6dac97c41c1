"""MovieLens as GroupLens publishes it: `u.data` and `u.item`, or `ratings` and `movies` as `.dat`
or `.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from sidtune.base.errors import UserError
from sidtune.data.item_files import plain_name
from sidtune.events.readers.format import text_tables
from sidtune.files.text import opened

HINT = "Is it a file of this data set? If it is, download it again."
EVENTS = ("user", "item", "rating", "time")
ITEMS = ("id", "title", "genres")
# The columns of u.item behind id, title, two dates and an address, in the order of u.genre.
GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
FIRST_GENRE = 5
# The columns of a CSV.
NAMES = {
    "user": "userid",
    "item": "movieid",
    "rating": "rating",
    "time": "timestamp",
    "id": "movieid",
    "title": "title",
    "genres": "genres",
}
LONGEST_LINE = 1 << 16


def ratings(path: Path) -> Iterator[pa.Table]:
    """The ratings of a file, of each of the three layouts.

    Raises:
        UserError: for a line of another number of fields, and a CSV without one of the columns.
    """
    return text_tables(_fields(path, EVENTS), EVENTS)


def movies(path: Path) -> Iterator[pa.Table]:
    """The films of a file: id, title and genres, which are joined by commas."""
    of_numbers = _plain_name(path).endswith("u.item")
    rows = _fields(path, ITEMS, FIRST_GENRE + len(GENRES) if of_numbers else None)
    return text_tables((_film(row, of_numbers) for row in rows), ITEMS)


def _film(row: list[str], of_numbers: bool) -> list[str]:
    if of_numbers:
        marks = zip(GENRES, row[FIRST_GENRE:], strict=True)
        return [row[0], row[1], ", ".join(genre for genre, mark in marks if mark == "1")]
    return [row[0], row[1], row[2].replace("|", ", ")]


def _fields(path: Path, columns: Sequence[str], width: int | None = None) -> Iterator[list[str]]:
    """The fields of each line in the order of the columns; a CSV names them in its first line.

    Args:
        width: how many fields a line has, if more than there are columns.
    """
    width, places = width or len(columns), None
    headed = _plain_name(path).endswith(".csv")
    for number, row in enumerate(_rows(path), start=1):
        if headed and number == 1:
            places, width = _places(row, columns, path), len(row)
        elif row and len(row) != width:
            raise UserError(
                f"{path}, line {number}: expected {width} fields, found {len(row)}",
                HINT,
            )
        elif row:
            yield [row[place] for place in places] if places else row


def _places(header: list[str], columns: Sequence[str], path: Path) -> list[int]:
    names = [plain_name(name) for name in header]
    missing = next((name for name in columns if NAMES[name] not in names), None)
    if missing:
        raise UserError(
            f"{path}: no column of MovieLens is the {missing}; found {', '.join(header)[:500]}",
            HINT,
        )
    return [names.index(NAMES[name]) for name in columns]


def _rows(path: Path) -> Iterator[list[str]]:
    name = _plain_name(path)
    if name.endswith(".csv"):
        return _of_csv(path)
    delimiter = "::" if name.endswith(".dat") else "|" if name.endswith("u.item") else "\t"
    # An empty line is an empty row, so that rows are counted as lines are.
    return (
        line.rstrip("\r\n").split(delimiter) if line.strip() else []
        for line in _lines(path, "latin-1")
    )


def _of_csv(path: Path) -> Iterator[list[str]]:
    try:
        yield from csv.reader(_lines(path, "utf-8"))
    except csv.Error as error:
        raise UserError(
            f"{path}: not a readable CSV: {error}",
            HINT,
        ) from None


def _plain_name(path: Path) -> str:
    return path.name.removesuffix(".gz")


def _lines(path: Path, encoding: str) -> Iterable[str]:
    """The lines of a file; the older data sets are in Latin-1, except where a copy was made in
    UTF-8.
    """
    with opened(path) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise UserError(
                    f"{path}, line {number}: more than {LONGEST_LINE:,} bytes",
                    "Is it this data set?",
                )
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError:
                if encoding == "utf-8":
                    raise UserError(f"{path}: not UTF-8", "Download it again.") from None
                yield line.decode(encoding)
