"""Checks of the catalogue and of the interaction rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from sidtune.base.errors import some
from sidtune.checks.finding import SHOWN, Finding
from sidtune.data.catalogue import read_catalogue
from sidtune.data.disagreements import Disagreement, disagreements
from sidtune.data.html import html_in
from sidtune.data.leave_one_out import FEWEST, read_interactions
from sidtune.data.rows import Split
from sidtune.inputs import Inputs


def catalogue(inputs: Inputs) -> Iterator[Finding]:
    catalogue, data = inputs.catalogue, inputs.config.data
    depths = sorted({len(sid) for sid in catalogue.sids})
    shared = {sid: items for sid, items in catalogue.items_of.items() if len(items) > 1}
    yield Finding(
        "note",
        str(data.index),
        f"{len(catalogue.ids):,} items, {len(catalogue.items_of):,} distinct SIDs of"
        f" {'/'.join(map(str, depths))} tokens, {len(catalogue.sid_tokens):,} SID tokens",
    )
    if catalogue.codes:
        message = (
            f"SIDs are numbers and are read as tokens: {catalogue.codes[0]} is"
            f" {''.join(catalogue.sids[0])}"
        )
        yield Finding("note", str(data.index), message, announced=True)
    if shared:
        items = sum(len(group) for group in shared.values())
        examples = [
            f"{''.join(sid)}: items {', '.join(catalogue.ids[i] for i in g)}"
            for sid, g in shared.items()
        ]
        remedy = "Set data.unique_sids: true to give each item a unique SID."
        yield Finding(
            "note",
            str(data.index),
            f"{items:,} items share a SID with another item",
            examples[:SHOWN],
            remedy,
        )
    if catalogue.alike:
        yield Finding(
            "warning",
            str(data.index),
            f"{sum(map(len, catalogue.alike)):,} items have ids that are the same number written"
            " differently, such as 17 and 17.0: a floating-point column cannot distinguish them",
            [" and ".join(group) for group in catalogue.alike[:SHOWN]],
            "Change these item ids, here and in every file that uses them.",
        )


def titles(inputs: Inputs) -> Iterator[Finding]:
    """Titles that contain HTML, and titles shared by several items."""
    catalogue, where = inputs.catalogue, str(inputs.config.data.items)
    if not catalogue.has_texts:
        return
    marked = [
        (item, found)
        for item, title in zip(catalogue.ids, catalogue.titles, strict=True)
        if (found := html_in(title))
    ]
    if marked:
        shown = [f"item {item}: {found:.60}" for item, found in marked[:SHOWN]]
        yield Finding(
            "note",
            where,
            f"{len(marked):,} titles contain HTML (tags or entities); the model reads it as text",
            shown,
        )
    alike: dict[str, list[str]] = {}
    for item, title in zip(catalogue.ids, catalogue.titles, strict=True):
        alike.setdefault(title, []).append(item)
    groups = {title: items for title, items in alike.items() if len(items) > 1}
    if groups:
        count = sum(map(len, groups.values()))
        shown = [
            f"{title!r:.60}: items {some(items)}" for title, items in islice(groups.items(), SHOWN)
        ]
        yield Finding("note", where, f"{count:,} items share a title with another item", shown)


def interactions(inputs: Inputs) -> Iterator[Finding]:
    """Statistics of the interaction file; the last two items of each user are held out, so nothing
    can leak.
    """
    data, count = inputs.config.data, len(inputs.catalogue.ids)
    if data.interactions is None:
        return
    items = read_interactions(data.interactions, inputs.catalogue).items
    lengths, bought = items.lengths, np.bincount(items.values, minlength=count)
    yield Finding(
        "note",
        str(data.interactions),
        f"{len(lengths):,} users, {lengths.sum():,} interactions, {lengths.min()} to"
        f" {lengths.max()} per user (mean {lengths.mean():.1f}); {np.count_nonzero(bought == 0):,}"
        f" of {count:,} items have no interaction",
    )
    if few := np.count_nonzero(lengths < FEWEST):
        message = (
            f"{few:,} users have fewer than {FEWEST} interactions and are used for training only"
        )
        yield Finding("note", str(data.interactions), message)


def train_rows(inputs: Inputs) -> Iterator[Finding]:
    yield from _rows(inputs, "train")


def valid_rows(inputs: Inputs) -> Iterator[Finding]:
    yield from _rows(inputs, "valid")


def test_rows(inputs: Inputs) -> Iterator[Finding]:
    if inputs.config.data.rows_file("test"):
        yield from _rows(inputs, "test")


def _rows(inputs: Inputs, split: Split) -> Iterator[Finding]:
    path, where = inputs.config.data.rows_file(split), _where(inputs, split)
    rows = inputs.mixture.source(split).rows
    lengths = rows.history.lengths
    yield Finding(
        "note",
        where,
        f"{len(rows.target):,} rows, histories of {lengths.min()} to {lengths.max()} items (mean"
        f" {lengths.mean():.1f})",
    )
    repeats = np.flatnonzero(rows.history.values[rows.history.offsets[1:] - 1] == rows.target)
    if len(repeats):
        shown = [f"row {row + 1}, user {rows.users[row]}" for row in repeats[:SHOWN].tolist()]
        remedy = "Set data.dedup: true to exclude them from training." if split == "train" else ""
        yield Finding(
            "note", where, f"{len(repeats):,} targets repeat the last history item", shown, remedy
        )
    if path and not inputs.config.data.interactions:
        yield from _disagreements(path, inputs)


def _where(inputs: Inputs, split: Split) -> str:
    """The file of a split, and the split's name if one file holds all splits."""
    data = inputs.config.data
    return f"{data.interactions}, {split}" if data.interactions else str(data.rows_file(split))


def _disagreements(path: Path, inputs: Inputs) -> Iterator[Finding]:
    data = inputs.config.data
    # Rows use the SIDs of the index file, without the token that data.unique_sids adds.
    differing = disagreements(path, read_catalogue(data.items, data.index))
    first = list(islice(differing, SHOWN))
    count = len(first) + sum(1 for _ in differing)
    if count:
        yield Finding(
            "warning",
            str(path),
            f"{count:,} cells differ from the catalogue; training uses the catalogue",
            [_cell(entry) for entry in first],
            "Check that the rows and the catalogue are from the same version.",
        )


def _cell(entry: Disagreement) -> str:
    return (
        f"row {entry.row}, {entry.column}: {entry.found!r:.60} in the file, {entry.expected!r:.60}"
        " in the catalogue"
    )
