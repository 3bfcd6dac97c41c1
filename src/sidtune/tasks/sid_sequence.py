"""A user's whole history as one sequence of SIDs, with every item a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.data.history_keys import history_keys
from sidtune.data.sequences import Sequences
from sidtune.tasks.base import Items, Part, Placeholders, Source, Task, TaskOptions

FORM = "sid_sequence"


class SidSequence(Task):
    """One example per user (several for long histories): one pass trains on all prefixes of the
    history at once.

    There is no closing token: each item is followed by the next one.
    """

    help: ClassVar[str] = (
        "a user's whole history, in which every item is a target: one example in place of one for"
        " each item"
    )
    is_sequence: ClassVar[bool] = True
    recommends: ClassVar[bool] = True
    forms: ClassVar[Mapping[str, Placeholders]] = {
        FORM: Placeholders(prompt=(), response=("sequence_sids",))
    }

    def size(self, source: Source) -> int:
        """Number of sequences."""
        return len(source.sequences.context)

    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """One part; its history keys equal those of `sid_next`, whose prompts start with the same
        history.
        """
        refuse_nested(FORM, set(source.catalogue.sids))
        histories = history_keys(source.rows.users, "history_sids")[source.sequences.rows[rows]]
        return [replace(sequence_part(FORM, source.sequences, rows), histories=histories)]


def sequence_part(form: str, sequences: Sequences, rows: NDArray[np.int64]) -> Part:
    """The chosen sequences as examples of a template."""
    columns = {"sequence_sids": Items(sequences.items.take(rows), "sid", many=True)}
    return Part(form, columns, rows, context=sequences.context[rows])


def refuse_nested(task: str, sids: set[tuple[str, ...]]) -> None:
    """Refuse SIDs that are prefixes of others: without a closing token, such a SID is ambiguous."""
    if found := nested(sids):
        short, long = map("".join, found)
        raise UserError(
            f"task {task}: the SID {short} is a prefix of {long}",
            "Use SIDs of equal length, or the task sid_next, whose responses end with a closing"
            " token.",
        )


def nested(sids: set[tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """A SID and one that it is a prefix of, if there are such."""
    pairs = ((sid[:depth], sid) for sid in sids for depth in range(1, len(sid)))
    return next((pair for pair in pairs if pair[0] in sids), None)
