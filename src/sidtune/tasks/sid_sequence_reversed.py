"""A user's whole history from newest to oldest, to learn co-occurrence in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sidtune.tasks.base import Part, Placeholders, Source, Task, TaskOptions
from sidtune.tasks.sid_sequence import refuse_nested, sequence_part

FORM = "sid_sequence_reversed"


class SidSequenceReversed(Task):
    """The sequences of `sid_sequence`, newest item first, every item a target; the prompt states
    the order.
    """

    help: ClassVar[str] = (
        "the same, newest item first, so that the model learns in both directions which"
        " items go together; mix it with `sid_sequence`"
    )
    is_sequence: ClassVar[bool] = True
    forms: ClassVar[Mapping[str, Placeholders]] = {
        FORM: Placeholders(prompt=(), response=("sequence_sids",))
    }

    def size(self, source: Source) -> int:
        """Number of sequences."""
        return len(source.reversed_sequences.context)

    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """One part without history keys: no other task's prompts start with a history in this
        order.
        """
        refuse_nested(FORM, set(source.catalogue.sids))
        return [replace(sequence_part(FORM, source.reversed_sequences, rows), newest_first=True)]
