"""What a reader of a public data set is: one function for files of events, one for
files of items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

ROWS_AT_ONCE = 100_000
Tables = Callable[[Path], Iterator[pa.Table]]


@dataclass(frozen=True)
class Format:
    """Readers of a data set; each gives tables of text, all of them with the same columns.

    Args:
        events: the columns `user`, `item`, `time` or `position`, `rating`; those that the data set
            has.
        items: the columns `id`, `title` and others.
        event_names, item_names: what the names of files of events, and of items, match, without
            `.gz`; files of a folder that others match are passed over.
        lists: a user's events are a list of one file.
    """

    events: Tables
    items: Tables
    event_names: str
    item_names: str
    lists: bool = False


def text_tables(rows: Iterable[Sequence[str | None]], names: Sequence[str]) -> Iterator[pa.Table]:
    """Rows of texts as tables with these columns, `ROWS_AT_ONCE` at most."""
    waiting = iter(rows)
    while batch := list(islice(waiting, ROWS_AT_ONCE)):
        columns = [pa.array(column, pa.large_string()) for column in zip(*batch, strict=True)]
        yield pa.table(columns, names=list(names))


def record_tables(
    records: Iterable[Mapping[str, str | None]], names: Sequence[str]
) -> Iterator[pa.Table]:
    """Records as tables with these columns; what a record does not have is null."""
    return text_tables(([record.get(name) for name in names] for record in records), names)
