"""Items that no file lists: those of the rows, which have no texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sidtune.base.errors import some
from sidtune.config.sids import SidsData
from sidtune.data.catalogue import refuse_unnameable
from sidtune.data.leave_one_out import interacted
from sidtune.files.ids import as_ids, canonical
from sidtune.files.row_files import row_batches
from sidtune.sids.items import Items


def row_files(data: SidsData) -> list[Path]:
    """The files whose rows or histories name the items; none where there are no training rows."""
    if data.interactions:
        return [data.interactions]
    return [file for file in (data.train, data.valid, data.test) if file] if data.train else []


def items_of_rows(data: SidsData) -> Items:
    """All items of the rows, also of validation and test rows, in the order of their ids.

    Raises:
        UserError: as the readers of rows, and for ids that cannot be written.
    """
    found = pc.unique(pa.concat_arrays(list(_ids(data))))
    ids = sorted(found.to_pylist())
    items = Items(ids, [""] * len(ids), [""] * len(ids))
    refuse_unnameable(items.as_catalogue(), some([str(file) for file in row_files(data)]))
    return items


def _ids(data: SidsData) -> Iterator[pa.Array]:
    if data.interactions:
        yield _distinct(interacted(data.interactions))
        return
    for file in row_files(data):
        for rows in row_batches(file):
            yield _distinct(rows["history"].combine_chunks().flatten())
            yield _distinct(rows["target"].combine_chunks())


def _distinct(ids: pa.Array) -> pa.Array:
    """Each item once; `7.0` is item `7`."""
    texts, _ = as_ids(pc.unique(ids))
    return pc.unique(canonical(texts))
