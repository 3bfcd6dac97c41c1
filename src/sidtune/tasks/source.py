"""From configured files to what tasks draw on, one split at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sidtune.config import DataConfig
from sidtune.data.catalogue import Catalogue
from sidtune.data.instructions import INSTRUCTIONS, read_instructions
from sidtune.data.leave_one_out import load_leave_one_out
from sidtune.data.preferences import PREFERENCES, VALID_NAMES, read_preferences
from sidtune.data.rows import Rows, Split, load_rows, resolve_rows
from sidtune.errors import UserError
from sidtune.tasks.base import Source


def load_source(data: DataConfig, catalogue: Catalogue, split: Split) -> Source:
    """Read one split of every configured file.

    `data.dedup` leaves validation as it is, so that its figures stay comparable. Instructions have no split: they
    are training data.
    """
    rows = load_split(data, catalogue, split)
    if data.dedup and split == "train":
        rows = _without_repeats(rows)
        if not len(rows.target):
            raise UserError(
                f"{data.rows_file(split)}: every row's target repeats the last history item", "Set data.dedup: false."
            )
    preferences, preference_rows = _preferences(data, catalogue, split)
    instructions = INSTRUCTIONS.empty_table()
    if data.instructions and split == "train":
        instructions = read_instructions(data.instructions)
    return Source(catalogue, rows, preferences, preference_rows, instructions, split)


def load_split(data: DataConfig, catalogue: Catalogue, split: Split) -> Rows:
    """The interaction rows of a split, all of them, from its own file or out of whole histories."""
    if data.interactions:
        assert data.longest_history is not None
        return load_leave_one_out(data.interactions, catalogue, split, data.longest_history)
    path = data.rows_file(split)
    assert path is not None
    return load_rows(path, catalogue).latest(data.longest_history)


def _preferences(data: DataConfig, catalogue: Catalogue, split: Split) -> tuple[pa.Table, Rows]:
    if data.preferences is None:
        table = PREFERENCES.empty_table()
        return table, resolve_rows(table.select(["user_id", "history", "target"]), catalogue, data.index)
    table = read_preferences(data.preferences)
    names = ("train",) if split == "train" else VALID_NAMES
    table = table.filter(pc.is_in(table["split"], pa.array(names)))
    rows = resolve_rows(table.select(["user_id", "history", "target"]), catalogue, data.preferences)
    return table, rows.latest(data.longest_history)


def _without_repeats(rows: Rows) -> Rows:
    last: NDArray[np.int32] = rows.history.values[rows.history.offsets[1:] - 1]
    return rows.take(np.flatnonzero(last != rows.target))
