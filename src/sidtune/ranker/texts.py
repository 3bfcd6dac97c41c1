"""Vectors of the items' texts, in the order of a catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.config.sids import SidsConfig, VectorKind
from sidtune.data.catalogue import Catalogue
from sidtune.ranker.pairs import Floats
from sidtune.sids.items import Items, read_items
from sidtune.sids.vectors import VECTORS
from sidtune.sids.vectors.source import Source, unit

KINDS: tuple[VectorKind, ...] = ("encoder", "file", "text")


def text_vectors(
    file: Path | None, options: SidsConfig | None, catalogue: Catalogue
) -> Floats | None:
    """Vectors `(items, d)` of length 1, or 0 for items without text, made as `sidtune sids` makes
    them; None without a file of texts.

    Args:
        file: with the items' texts.
        options: the section `sids`, which may name an encoder or given vectors.
        catalogue: whose items want vectors.

    Raises:
        UserError: as `read_items`.
    """
    options = options or SidsConfig()
    file = options.catalogue or file
    if file is None:
        return None
    items = _matching(read_items(file, options.columns), catalogue)
    kind: VectorKind = next((name for name in KINDS if name in options.weights), "text")
    if kind == "text" and not any(items.texts):
        return None
    try:
        vectors, _ = VECTORS[kind]().fit(Source(items, options))
    except UserError as error:
        warn(f"text neighbours are left out: {error.message}. {error.hint or ''}".rstrip())
        return None
    return unit(np.asarray(vectors, np.float32))


def _matching(items: Items, catalogue: Catalogue) -> Items:
    """The catalogue's items, in its order; one that the file lacks has no text."""
    places = {name: place for place, name in enumerate(items.ids)}
    found = [places.get(name) for name in catalogue.ids]
    return Items(
        list(catalogue.ids),
        ["" if place is None else items.titles[place] for place in found],
        ["" if place is None else items.texts[place] for place in found],
    )
