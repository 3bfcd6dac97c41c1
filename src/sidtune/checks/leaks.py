"""The check for held-out rows that are part of the training data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.checks.finding import SHOWN, Finding
from sidtune.data.leaks import contained, examples, repeated_rows, sequences
from sidtune.data.leave_one_out import Interactions, read_interactions, whole_split
from sidtune.data.rows import Rows, Split, load_rows
from sidtune.files.ids import as_users
from sidtune.inputs import Inputs
from sidtune.tasks.source import load_preferences

LEAK = "leak: the history followed by the target is part of a training sequence of the same user"
REPEATED = "rows (user, history and target) are also in the training file"


@dataclass(frozen=True)
class _HeldOut:
    """Held-out examples, which must not be part of the training data.

    Args:
        where: the file, and the split if the file holds several.
        unit: what is counted: rows, users or records.
        numbers: `(n,)`, the position of each example in the file, from 0; None if the user
            identifies it.
        examples: n histories, each followed by its target.
        repeated: how many of the rows are also in the training file.
    """

    where: str
    unit: str
    numbers: NDArray[np.int64] | None
    examples: Interactions
    repeated: int = 0

    def named(self, example: int) -> str:
        """A readable name of an example."""
        user = f"user {self.examples.users[example]}"
        return (
            user
            if self.numbers is None
            else f"{self.unit[:-1]} {int(self.numbers[example]) + 1}, {user}"
        )


def leakage(inputs: Inputs) -> Iterator[Finding]:
    """Held-out rows that are part of the training data; histories are compared uncut, ignoring
    `data.history`.

    Repeating an earlier item is not a leak: the whole row must be part of a training sequence.
    """
    # Read once: with `data.history` set, the mixture's rows are others.
    train = None if inputs.config.data.interactions else _uncut(inputs, "train")
    held_out = [*_rows(inputs, train), *_histories(inputs), *_records(inputs)]
    users = pa.concat_arrays([as_users(part.examples.users) for part in held_out])
    training = list(_training(inputs, train, users))
    for part in held_out:
        leaked = contained(part.examples, training)
        if len(leaked):
            shown = [part.named(at) for at in leaked[:SHOWN].tolist()]
            also = f"; {part.repeated:,} {REPEATED}" if part.repeated else ""
            remedy = "Split by time or by user, so that training does not contain these rows."
            yield Finding(
                "warning", part.where, f"{len(leaked):,} {part.unit} {LEAK}{also}", shown, remedy
            )


def _training(inputs: Inputs, train: Rows | None, users: pa.Array) -> Iterator[Interactions]:
    """The training sequences of these users."""
    data = inputs.config.data
    if data.interactions:
        yield whole_split(read_interactions(data.interactions, inputs.catalogue), "train")
    if train is not None:
        yield sequences(train, users)
    yield sequences(load_preferences(data, inputs.catalogue, "train")[1], users)


def _rows(inputs: Inputs, train: Rows | None) -> Iterator[_HeldOut]:
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        if train is not None and (path := getattr(inputs.config.data, split)):
            rows = _uncut(inputs, split)
            repeated = len(repeated_rows(rows, train))
            yield _HeldOut(str(path), "rows", np.arange(len(rows.target)), examples(rows), repeated)


def _histories(inputs: Inputs) -> Iterator[_HeldOut]:
    splits: tuple[Split, ...] = ("valid", "test")
    if path := inputs.config.data.interactions:
        histories = read_interactions(path, inputs.catalogue)
        for split in splits:
            yield _HeldOut(f"{path}, {split}", "users", None, whole_split(histories, split))


def _records(inputs: Inputs) -> Iterator[_HeldOut]:
    data = inputs.config.data
    if data.preferences:
        _, rows, places = load_preferences(data, inputs.catalogue, "valid")
        yield _HeldOut(str(data.preferences), "records", places, examples(rows))


def _uncut(inputs: Inputs, split: Split) -> Rows:
    """The rows of a file with uncut histories."""
    data = inputs.config.data
    if data.history is None:
        return inputs.mixture.source(split).rows
    path = data.rows_file(split)
    assert path is not None
    return load_rows(path, inputs.catalogue)
