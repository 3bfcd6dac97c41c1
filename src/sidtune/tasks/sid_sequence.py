"""A user's whole history as one sequence of SIDs, every item of it a target."""

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
    """One example for each user (more where a history is long): one pass trains what growing prefixes train in many.

    It has no closing token: what follows an item is the next one.
    """

    is_sequence: ClassVar[bool] = True
    recommends: ClassVar[bool] = True
    forms: ClassVar[Mapping[str, Placeholders]] = {FORM: Placeholders(prompt=(), response=("sequence_sids",))}

    def size(self, source: Source) -> int:
        """Number of sequences."""
        return len(source.sequences.context)

    def build(self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int) -> Sequence[Part]:
        """One part; its keys are those of `sid_next`, which opens with the same history."""
        refuse_nested(FORM, set(source.catalogue.sids))
        histories = history_keys(source.rows.users, "history_sids")[source.sequences.rows[rows]]
        return [replace(sequence_part(FORM, source.sequences, rows), histories=histories)]


def sequence_part(form: str, sequences: Sequences, rows: NDArray[np.int64]) -> Part:
    """The chosen sequences as examples of a form."""
    columns = {"sequence_sids": Items(sequences.items.take(rows), "sid", many=True)}
    return Part(form, columns, rows, context=sequences.context[rows])


def refuse_nested(task: str, sids: set[tuple[str, ...]]) -> None:
    """Refuse SIDs that begin others: in a sequence nothing says whether such a SID is whole."""
    for sid in sids:
        for depth in range(1, len(sid)):
            if sid[:depth] in sids:
                raise UserError(
                    f"task {task}: the SID {''.join(sid[:depth])} is the beginning of another, {''.join(sid)}",
                    "Give all SIDs one depth, or use the task sid_next, whose responses are closed.",
                )
