"""The report on any index: a file from anywhere, or a folder of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsConfig
from sidtune.data.catalogue import read_catalogue
from sidtune.sids.index import FITTED, INDEX, read_index
from sidtune.sids.items import Items, read_items
from sidtune.sids.kmeans import Floats
from sidtune.sids.report.measure import measure
from sidtune.sids.vectors.given import read_vectors
from sidtune.sids.vectors.source import Source
from sidtune.sids.vectors.text import Text


def report(
    index: Path, catalogue: Path | None = None, vectors: Path | None = None
) -> dict[str, Any]:
    """Every figure of an index.

    Args:
        index: `.index.json`, or a folder that `sidtune sids` made.
        catalogue: for titles; and for likeness by text where no vectors are known.
        vectors: by which items are alike; rows in the order of the catalogue, or of the index where
            there is none.

    Raises:
        UserError: for items without SID or SIDs without item, and as the readers.
    """
    folder = index if index.is_dir() else index.parent
    own = (folder / FITTED).is_file() and (index.is_dir() or index.name == INDEX)
    if own and not catalogue and not vectors:
        return read_index(folder).report
    known = read_catalogue(None, folder / INDEX if own else index)
    items = Items(known.ids, [""] * len(known.ids), [""] * len(known.ids))
    if catalogue:
        items = _same_items(read_items(catalogue), known.ids, catalogue, index)
    sid_of = dict(zip(known.ids, known.sids, strict=True))
    return measure([sid_of[item] for item in items.ids], items.titles, _vectors(items, vectors))


def _same_items(items: Items, ids: list[str], catalogue: Path, index: Path) -> Items:
    """The items that have a SID; a SID that has no item is refused."""
    given = set(items.ids)
    without = [item for item in ids if item not in given]
    if without:
        message = (
            f"{index}: {len(without):,} SIDs have no item in {catalogue.name} (first {without[0]})"
        )
        raise UserError(message, "Take items and index from the same build.")
    if len(items) > len(ids):
        known = set(ids)
        lacking = [item for item in items.ids if item not in known]
        message = (
            f"{catalogue}: {len(lacking):,} items have no SID in {index.name} (first {lacking[0]})"
        )
        raise UserError(
            message, "Take items and index from the same build, or assign: `sidtune sids assign`."
        )
    return items


def _vectors(items: Items, file: Path | None) -> Floats | None:
    if file:
        return read_vectors(file, items)
    if any(items.texts):
        return Text().fit(Source(items, SidsConfig()))[0]
    return None
