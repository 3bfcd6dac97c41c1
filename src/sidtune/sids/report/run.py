"""The report on any index: a file from anywhere, or a folder of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsConfig
from sidtune.data.catalogue import Catalogue, read_catalogue
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
        catalogue: for titles; and for likeness by text where no vectors are known. Our own folder
            has some.
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
    items = Items(known.ids, known.titles, known.titles)
    places: NDArray[np.integer] = np.arange(len(known.ids))
    if catalogue:
        items = read_items(catalogue)
        places = _places(items, known, catalogue, index)
    sids = [known.sids[place] for place in places]
    if own and not vectors:
        return measure(sids, items.titles, read_index(folder).vectors[places])
    return measure(sids, items.titles, _vectors(items, vectors))


def _places(items: Items, known: Catalogue, catalogue: Path, index: Path) -> NDArray[np.integer]:
    """Where each item stands in the index; refuses a SID without item, and an item without SID."""
    places = known.find(items.ids)
    without = np.setdiff1d(np.arange(len(known.ids)), places)
    if len(without):
        raise UserError(
            f"{index}: {len(without):,} SIDs have no item in {catalogue.name} (first"
            f" {known.ids[without[0]]})",
            "Take items and index from the same build.",
        )
    lacking = np.flatnonzero(places < 0)
    if len(lacking):
        raise UserError(
            f"{catalogue}: {len(lacking):,} items have no SID in {index.name} (first"
            f" {items.ids[lacking[0]]})",
            "Take items and index from the same build, or assign: `sidtune sids assign`.",
        )
    return places


def _vectors(items: Items, file: Path | None) -> Floats | None:
    if file:
        return read_vectors(file, items)
    if any(items.texts):
        return Text().fit(Source(items, SidsConfig()))[0]
    return None
