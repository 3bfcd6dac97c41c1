"""The items that get SIDs, with their texts: `.item.json`, the Parquet catalogue of `sidtune
prepare`, or a table of texts.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sidtune.base.errors import UserError, did_you_mean
from sidtune.base.terminal import warn
from sidtune.config.sids import USUAL_COLUMNS
from sidtune.data.catalogue import Catalogue, refuse_unnameable
from sidtune.data.html import HTML
from sidtune.data.item_files import (
    ID_COLUMNS,
    TITLE_COLUMNS,
    columns_of,
    first_of,
    like_usual,
    read_columns,
    read_records,
    records_of,
)
from sidtune.events.catalogue import text_items
from sidtune.events.columns import find_column
from sidtune.events.engine import require
from sidtune.events.files import DELIMITERS, JSON_LINES
from sidtune.files.ids import canonical, number_text
from sidtune.files.literals import parse_list
from sidtune.files.row_files import kind_of

TEXT_KINDS = (*DELIMITERS, *JSON_LINES)
TAG = re.compile(r"</?[a-zA-Z][^<>]{0,1000}>|<!--")


@dataclass(frozen=True)
class Items:
    """Items in the order of their file.

    Args:
        ids: item ids, all distinct.
        titles: one title an item, empty where there is none.
        texts: title and other columns of each item, one to a line, plain text.
        columns: those that the texts were read from, which some item has text in.
        others: columns that were not read.
    """

    ids: list[str]
    titles: list[str]
    texts: list[str]
    columns: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Sequence[int]) -> Items:
        """The items at these places, in that order."""
        ids, titles, texts = (
            [column[place] for place in places] for column in (self.ids, self.titles, self.texts)
        )
        return Items(ids, titles, texts, self.columns, self.others)

    def as_catalogue(self) -> Catalogue:
        """The same items without SIDs, for reading rows that mention them."""
        return Catalogue(self.ids, self.titles, self.titles, [()] * len(self.ids))


def read_items(path: Path, columns: Sequence[str] | None = None) -> Items:
    """Read ids, titles and texts.

    Args:
        path: an `.item.json` (id → record); or Parquet, CSV, TSV or JSON Lines, whose columns of
            ids and titles have usual names.
        columns: texts to read beside the title; the usual ones by default.

    Raises:
        UserError: for a file of another shape, no items, an id that stands twice, and a column that
            no item has.
    """
    kind = kind_of(path)
    tabular = kind in (*TEXT_KINDS, ".parquet")
    found = _of_table(path, kind, columns or ()) if tabular else read_records(path)
    for item, record in found.items():
        if not isinstance(record, dict):
            raise UserError(
                f"{path}: item {item}: expected an object with a title, found {record!r:.60}",
                'Write {"17": {"title": "Blue mug"}, …}, one object per item.',
            )
    ids, records = list(found), list(found.values())
    if columns is not None:
        _refuse_unknown(columns, records, path)
    has = columns_of(records)
    titled = like_usual(has, TITLE_COLUMNS)
    titles = [_plain(first_of(record, titled)) for record in records]
    names = like_usual(has, USUAL_COLUMNS) if columns is None else columns
    read = {"title": titles}
    for name in names:
        read.setdefault(name, [_plain(record.get(name)) for record in records])
    texts = ["\n".join(filter(None, entries)) for entries in zip(*read.values(), strict=True)]
    used = tuple(name for name, entries in read.items() if any(entries))
    others = [name for name in has if name not in (*read, *titled, *ID_COLUMNS)]
    items = Items(ids, titles, texts, used, tuple(others))
    refuse_unnameable(items.as_catalogue(), path)
    if empty := sum(not title for title in titles):
        warn(
            f"{path}: {empty:,} of {len(ids):,} items have no title; their SIDs follow from the"
            " rest of what is known"
        )
    return items


def _of_table(path: Path, kind: str, columns: Sequence[str]) -> dict[str, Any]:
    """The records of a table, whose id and title get the names that they have in `.item.json`.

    Args:
        columns: those that the configuration names; they keep their names.
    """
    if kind in TEXT_KINDS:
        require("prepare")
        table = text_items([path], kind)
    else:
        table = read_columns(path, "Items are read from .item.json, Parquet, CSV or JSON Lines.")
    names = table.column_names
    item, title = (
        own if own in names else find_column(role, None, names, str(path), "catalogue")
        for role, own in (("id", ID_COLUMNS[0]), ("title", TITLE_COLUMNS[0]))
    )
    known = {item: ID_COLUMNS[0]} | ({title: TITLE_COLUMNS[0]} if title not in columns else {})
    table = table.rename_columns([known.get(name, name) for name in names])
    if item and str(table[ID_COLUMNS[0]].type) in ("string", "large_string"):
        # As `sidtune prepare` writes them.
        ids = pc.utf8_trim_whitespace(table[ID_COLUMNS[0]].combine_chunks())
        ids = canonical(ids.cast(pa.large_string()))
        table = table.set_column(names.index(item), ID_COLUMNS[0], ids)
    return records_of(table, path)


def _refuse_unknown(columns: Iterable[str], records: Sequence[dict[str, Any]], path: Path) -> None:
    known = sorted(columns_of(records))
    for name in columns:
        if name not in known:
            message = f"sids.columns: no item of {path} has {name!r:.80}{did_you_mean(name, known)}"
            raise UserError(message, f"It has {', '.join(known[:30])}.")


def _plain(value: Any) -> str:
    """The text that a value stands for, on one line: entries of lists joined, HTML gone."""
    text = (
        value
        if isinstance(value, str) and not value.lstrip().startswith("[")
        else " ".join(_texts(value))
    )
    if ("<" in text or "&" in text) and HTML.search(text):
        text = html.unescape(TAG.sub(" ", text))
    return " ".join(text.split())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _literal_or_text(value)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _texts(entry)
    elif type(value) in (int, float):
        yield number_text(value)
    elif isinstance(value, date | Decimal):
        yield str(value)


def _literal_or_text(text: str) -> list[str]:
    """The entries of a Python list that was written as text, as Amazon's descriptions are; else the
    text itself.
    """
    if text.lstrip().startswith("["):
        try:
            return [str(entry) for entry in parse_list(text)]
        except ValueError:
            pass
    return [text]
