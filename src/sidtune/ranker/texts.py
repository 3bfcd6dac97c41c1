"""Vectors of the items' texts, in the order of a catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.config.sids import SidsConfig, VectorKind
from sidtune.data.catalogue import Catalogue
from sidtune.files.ids import Names
from sidtune.ranker.pairs import Floats
from sidtune.sids.items import Items, read_items
from sidtune.sids.vectors import VECTORS
from sidtune.sids.vectors.source import Source, unit

KINDS: tuple[VectorKind, ...] = ("encoder", "file", "text")


def text_vectors(
    file: Path | None,
    options: SidsConfig | None,
    catalogue: Catalogue,
    instead: Path | None = None,
    left_out: str | None = "text neighbours are left out",
) -> Floats | None:
    """Vectors `(items, d)` of length 1, or 0 for items without text, made as `sidtune sids` makes
    them; None without a file of texts.

    Args:
        file: with the items' texts.
        options: the section `sids`, which may name an encoder or given vectors.
        catalogue: whose items want vectors.
        instead: a file in place of `file` and of `sids.catalogue`.
        left_out: what a warning says goes without vectors that cannot be made; None to raise.

    Raises:
        UserError: as `read_items`; with `left_out` None also as the kinds of vectors.
    """
    options = options or SidsConfig()
    file = instead or options.catalogue or file
    if file is None:
        return None
    items = read_items(file, options.columns)
    # -1 for an item that the file lacks.
    names = pa.array(catalogue.ids, pa.large_string())
    places = Names.of(items.ids).positions(names)
    kind: VectorKind = next((name for name in KINDS if name in options.weights), "text")
    # Vectors that are given stand in the order of the file's items.
    given = kind == "file"
    wanted = items if given else _matching(items, places, catalogue)
    if kind == "text" and not any(wanted.texts):
        return None
    try:
        vectors, _ = VECTORS[kind]().fit(Source(wanted, options))
    except UserError as error:
        if left_out is None:
            raise
        warn(f"{left_out}: {error.message}. {error.hint}")
        return None
    found = unit(np.asarray(vectors, np.float32))
    return np.where(places[:, None] < 0, np.float32(0), found[places]) if given else found


def _matching(items: Items, places: NDArray[np.int32], catalogue: Catalogue) -> Items:
    """The catalogue's items, in its order; one that the file lacks has no text."""
    return Items(
        list(catalogue.ids),
        ["" if place < 0 else items.titles[place] for place in places.tolist()],
        ["" if place < 0 else items.texts[place] for place in places.tolist()],
    )
