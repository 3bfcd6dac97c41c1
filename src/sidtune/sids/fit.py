"""From a catalogue to a SID index: vectors, codebooks, collisions, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sidtune.base.errors import UserError
from sidtune.base.hashing import digest, file_digest
from sidtune.base.terminal import starting, warn
from sidtune.config.data import HISTORY_OF_INTERACTIONS
from sidtune.config.sids import QuantizerKind, SidsConfig, SidsRun
from sidtune.data.leave_one_out import load_leave_one_out
from sidtune.data.rows import Rows, load_rows
from sidtune.sids.collisions import RULES
from sidtune.sids.index import FOLDER, INDEX, Fitted, is_complete, tokens, write_index
from sidtune.sids.items import Items, read_items
from sidtune.sids.kmeans import Codes, Floats, chunks
from sidtune.sids.quantizers import QUANTIZERS
from sidtune.sids.report.measure import measure
from sidtune.sids.row_items import items_of_rows, row_files
from sidtune.sids.vectors import fit_vectors
from sidtune.sids.vectors.source import Source

# A change of what the same inputs lead to changes it.
METHOD_VERSION = 6
DEPTH, USUAL_SIZE, ITEMS_OF_USUAL_SIZE, SMALLEST_SIZE = 3, 256, 1_024, 4
ITEMS_PER_CODE = 4
# Quantizers with an encoder that is trained.
MINUTES: tuple[QuantizerKind, ...] = ("rq_vae", "rq_kmeans_plus")
# Of the columns that are not read.
SHOWN = 8
# Keys whose files count by what they hold, and not by their names.
FILES = ("catalogue", "file", "encoder")


class Made(NamedTuple):
    """Where an index is, and whether it was there already."""

    folder: Path
    unchanged: bool


def make(run: SidsRun) -> Made:
    """Fit the SIDs that a configuration describes, unless they are there.

    Raises:
        UserError: for inputs that are missing or unusable; nothing is written then.
    """
    folder = run.output_dir / FOLDER / fingerprint(run)
    if is_complete(folder):
        return Made(folder, True)
    file = catalogue_file(run)
    items = read_items(file, run.sids.columns) if file else items_of_rows(run.data)
    _refuse_silent(run, items)
    starting(f"Making SIDs of {len(items):,} items{_texts(items, run.sids)}{_time(run.sids)}")
    write_index(fit(Source(items, run.sids, _reader(run, items))), folder)
    return Made(folder, False)


def index_file(run: SidsRun) -> Path:
    """Where `make` leaves the index of a configuration."""
    return run.output_dir / FOLDER / fingerprint(run) / INDEX


def fit(source: Source) -> Fitted:
    """Vectors, codebooks, SIDs and their report; equal to the bit for the same inputs, seed,
    machine and threads.
    """
    items, options = source.items, source.options
    vectors, states, widths = fit_vectors(source)
    sizes = list(options.levels or default_levels(len(items)))
    if len(items) < sizes[0]:
        warn(
            f"{len(items):,} items are fewer than the {sizes[0]:,} codes of the first level: most"
            " codes stay unused"
        )
    generator = np.random.default_rng(options.seed)
    books, nearest = QUANTIZERS[options.quantizer](vectors, sizes, generator)
    outcome = RULES[options.collisions](books.project(vectors), books, nearest)
    if outcome.surplus:
        warn(
            f"{outcome.surplus:,} items went to another prefix than the nearest: it has more items"
            " than last codes"
        )
    sids = tokens(outcome.codes, outcome.extra)
    report = measure(sids, items.titles, vectors)
    distinct = len(np.unique(nearest, axis=0))
    report["fit"] = {
        "quantizer": options.quantizer,
        "sizes": sizes,
        "collisions": options.collisions,
        "items_sharing_the_nearest_sid": len(items) - distinct,
        "reassigned": outcome.moved,
        "surplus": outcome.surplus,
        "distortion": _distortion(books.project(vectors), nearest, books.levels),
    }
    return Fitted(
        items.ids,
        items.titles,
        vectors,
        sids,
        outcome.codes,
        books,
        options,
        states,
        widths,
        report,
    )


def default_levels(items: int) -> list[int]:
    """Three levels: of 256 codes from a thousand items on, as in TIGER; of a quarter of the items
    below.

    Larger where there would not be four SIDs an item.
    """
    size = USUAL_SIZE if items >= ITEMS_OF_USUAL_SIZE else SMALLEST_SIZE
    while items < ITEMS_OF_USUAL_SIZE and size * 2 <= items / ITEMS_PER_CODE:
        size *= 2
    while size**DEPTH < items * ITEMS_PER_CODE:
        size *= 2
    return [size] * DEPTH


def _refuse_silent(run: SidsRun, items: Items) -> None:
    """Raises `UserError` for a column that was asked for and has no text."""
    for name in run.sids.columns or ():
        if name not in items.columns:
            raise UserError(
                f"sids.columns: {name!r} of {catalogue_file(run)} has no text for any item",
                "Leave it out. Texts, numbers and dates are read, and lists and objects of them.",
            )


def _texts(items: Items, options: SidsConfig) -> str:
    """Which columns the texts come from, and which are not read."""
    if not {"text", "encoder"} & options.weights.keys() or not items.columns:
        return ""
    others = f", not from {', '.join(items.others[:SHOWN])}" if items.others else ""
    hint = " (sids.columns chooses)" if others else ""
    return f" from {', '.join(items.columns)}{others}{hint}"


def _time(options: SidsConfig) -> str:
    """How long it takes, unless that depends on an encoder, which tells it while it reads."""
    if "encoder" in options.weights:
        return ""
    slow = options.quantizer in MINUTES
    return ": some minutes" if slow else ": about half a minute for 100,000"


def catalogue_file(run: SidsRun) -> Path | None:
    """The file with the items; None where those of the rows are meant, which have no texts.

    Raises:
        UserError: where none is configured, and texts or given vectors need one.
    """
    file = run.sids.catalogue or run.data.items
    if file is None and run.sids.weights.keys() != {"co_occurrence"}:
        raise UserError(
            "SIDs are made of a catalogue, and neither data.items nor sids.catalogue is given",
            "Give data.items (.item.json), or sids.catalogue (Parquet with item_id, title and"
            " texts); sids.vectors: co_occurrence alone needs neither.",
        )
    if file is None and not row_files(run.data):
        raise _no_rows()
    return file


def fingerprint(run: SidsRun) -> str:
    """A name for everything that an index follows from: files by their contents, settings, and the
    method's version.
    """
    catalogue = catalogue_file(run)
    files: list[Path | None] = [catalogue, run.sids.file] if catalogue else [*row_files(run.data)]
    if catalogue and "co_occurrence" in run.sids.weights:
        files.append(run.data.interactions or run.data.train)
    if run.sids.encoder:
        files += sorted(path for path in run.sids.encoder.rglob("*") if path.is_file())
    settings = {name: value for name, value in run.sids.resolved().items() if name not in FILES}
    history = run.data.history if "co_occurrence" in run.sids.weights else None
    given = [METHOD_VERSION, settings, history, [_digest(file) for file in files if file]]
    return digest(given)[:16]


def _reader(run: SidsRun, items: Items) -> Callable[[], Rows]:
    """What reads the training rows: of each user all but what validation and test have."""

    def read() -> Rows:
        catalogue = items.as_catalogue()
        if run.data.interactions:
            longest = run.data.history or HISTORY_OF_INTERACTIONS
            return load_leave_one_out(run.data.interactions, catalogue, "train", longest)
        if run.data.train:
            return load_rows(run.data.train, catalogue).latest(run.data.history)
        raise _no_rows()

    return read


def _no_rows() -> UserError:
    return UserError(
        "sids.vectors: co_occurrence needs training rows, and neither data.train nor"
        " data.interactions is given",
        "Give one of them, or use sids.vectors: text.",
    )


def _distortion(latents: Floats, codes: Codes, levels: list[Floats]) -> list[float]:
    """What share of the squared length of the latents each level leaves over."""
    left = latents.copy()
    whole = max(float(np.einsum("ij,ij->", left, left, dtype=np.float64)), 1e-12)
    shares = []
    for level, book in enumerate(levels):
        for rows in chunks(*left.shape):
            left[rows] -= book[codes[rows, level]]
        shares.append(float(np.einsum("ij,ij->", left, left, dtype=np.float64)) / whole)
    return shares


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}", "Check the path."
        ) from None
