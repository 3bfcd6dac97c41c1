"""SIDs for items that came later: from the codebooks that were fitted, beside the SIDs that are
given already.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.files.ids import Names
from sidtune.sids.collisions.keep import resolve
from sidtune.sids.collisions.reassign import resolve_beside
from sidtune.sids.index import FITTED, Fitted, tokens
from sidtune.sids.items import Items, read_items
from sidtune.sids.kmeans import Codes, Floats
from sidtune.sids.report.measure import measure
from sidtune.sids.vectors import place_vectors


class Placed(NamedTuple):
    """An index with more items, where it belongs, and how many of its items are new or lie under
    another prefix; the given one where no item is new.
    """

    fitted: Fitted
    folder: Path
    new: int
    surplus: int


def assign(fitted: Fitted, folder: Path, catalogue: Path, vectors: Path | None = None) -> Placed:
    """Give SIDs to the items of a catalogue that an index does not have; nothing is written.

    A new item gets the nearest last code that is free, so that it never has the SID of another
    item; with `collisions: keep` it gets the nearest one.

    Args:
        folder: that of the index; the new one gets a name beside it that follows from both.
        catalogue: items, of which the index may have some.
        vectors: of the catalogue's items, where `sids.vectors` is `file`.

    Raises:
        UserError: as its readers.
    """
    options = fitted.options
    if ("file" in options.weights) != (vectors is not None):
        need = (
            "needs --vectors: its SIDs were made of given vectors"
            if vectors is None
            else "takes no --vectors"
        )
        raise UserError(
            f"{folder} {need}",
            "sidtune sids assign SIDS --items FILE --vectors FILE.npy" if vectors is None else "",
        )
    items = read_items(catalogue, options.columns)
    known = Names.of(fitted.ids).positions(pa.array(items.ids, pa.large_string()))
    new = np.flatnonzero(known < 0).tolist()
    if not new:
        return Placed(fitted, folder, 0, 0)
    options = options.model_copy(update={"file": vectors}) if vectors else options
    added = items.take(new)
    # Vectors that are given stand in the order of the whole catalogue.
    placed = items if vectors else added
    points = place_vectors(placed, fitted.states, options, fitted.vectors, fitted.widths)
    points = points[new] if vectors else points
    if empty := int((points == 0).all(1).sum()):
        warn(
            f"{empty:,} of {len(new):,} new items have none of the terms that were fitted; they"
            " share the vector 0"
        )
    latents = fitted.books.project(points)
    nearest = fitted.books.encode(latents)
    if options.collisions == "keep":
        outcome = resolve(latents, fitted.books, nearest)
    else:
        outcome = resolve_beside(latents, fitted.books, nearest, fitted.codes)
    grown = _grown(fitted, added, points, outcome.codes, outcome.extra)
    # A folder that is named `.` lies beside others, too.
    place = folder.resolve().parent / _name(folder, added, outcome.codes)
    return Placed(grown, place, len(new), outcome.surplus)


def _grown(
    fitted: Fitted,
    added: Items,
    points: Floats,
    codes: Codes,
    extra: Codes,
) -> Fitted:
    sids, titles = fitted.sids + tokens(codes, extra), fitted.titles + added.titles
    vectors = np.concatenate([fitted.vectors, points])
    report = measure(sids, titles, vectors)
    if "fit" in fitted.report:
        report["fit"] = fitted.report["fit"]
    return replace(
        fitted,
        ids=fitted.ids + added.ids,
        titles=titles,
        vectors=vectors,
        sids=sids,
        codes=np.concatenate([fitted.codes, codes]),
        report=report,
    )


def _name(folder: Path, added: Items, codes: Codes) -> str:
    before = hashlib.sha256((folder / FITTED).read_bytes()).hexdigest()
    given = json.dumps([before, added.ids, added.titles, codes.tolist()])
    return hashlib.sha256(given.encode()).hexdigest()[:16]
