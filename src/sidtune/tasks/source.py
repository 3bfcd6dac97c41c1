"""Reads the configured files into the source of the tasks, one split at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.config.data import DataConfig
from sidtune.data.catalogue import Catalogue
from sidtune.data.instructions import INSTRUCTIONS, read_instructions
from sidtune.data.leave_one_out import load_leave_one_out
from sidtune.data.preferences import PREFERENCES, VALID_NAMES, read_preferences
from sidtune.data.rows import Rows, Split, load_rows, resolve_rows
from sidtune.tasks.base import Source


def load_source(data: DataConfig, catalogue: Catalogue, split: Split) -> Source:
    """Read one split of every configured file.

    `data.dedup` does not change validation rows, so that metrics stay comparable. Instructions have
    no split and are used for training only.
    """
    rows = load_split(data, catalogue, split)
    if data.dedup and split == "train":
        rows = _without_repeats(rows)
        if not len(rows.target):
            raise UserError(
                f"{data.rows_file(split)}: every row's target repeats the last history item",
                "Set data.dedup: false.",
            )
    preferences, preference_rows, _ = load_preferences(data, catalogue, split)
    instructions = INSTRUCTIONS.empty_table()
    if data.instructions and split == "train":
        instructions = read_instructions(data.instructions)
    return Source(
        catalogue,
        rows,
        preferences,
        preference_rows.latest(data.longest_history),
        instructions,
        split,
    )


def load_split(data: DataConfig, catalogue: Catalogue, split: Split) -> Rows:
    """All interaction rows of a split, from its own file or from whole histories."""
    if data.interactions:
        assert data.longest_history is not None
        return load_leave_one_out(data.interactions, catalogue, split, data.longest_history)
    path = data.rows_file(split)
    assert path is not None
    return load_rows(path, catalogue).latest(data.longest_history)


def load_preferences(
    data: DataConfig, catalogue: Catalogue, split: Split
) -> tuple[pa.Table, Rows, NDArray[np.int64]]:
    """The preference records of a split: as a table, as rows with uncut histories, and their
    positions in the file.
    """
    if data.preferences is None:
        table, path = PREFERENCES.empty_table(), data.index
    else:
        table, path = read_preferences(data.preferences), data.preferences
    names = {"train": ("train",), "valid": VALID_NAMES, "test": ("test",)}[split]
    places = np.flatnonzero(pc.is_in(table["split"], pa.array(names)).to_numpy())
    table = table.take(pa.array(places))
    return (
        table,
        resolve_rows(table.select(["user_id", "history", "target"]), catalogue, path),
        places,
    )


def _without_repeats(rows: Rows) -> Rows:
    last: NDArray[np.int32] = rows.history.values[rows.history.offsets[1:] - 1]
    return rows.take(np.flatnonzero(last != rows.target))
