"""Prompt → response: arbitrary instruction data, to mix in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sidtune.tasks.base import Part, Placeholders, Source, Task, TaskOptions, Texts


class InstructionOptions(TaskOptions):
    """`sid_tokens`: whether SIDs in prompt and response are encoded as tokens; null means as text,
    with a warning.
    """

    sid_tokens: bool | None = Field(
        default=None,
        description=(
            "`true` reads SIDs in the data as tokens, `false` as text. null: as text, and"
            " `sidtune check` warns where there are any"
        ),
    )


class Instruction(Task):
    """One example per line of the instruction file."""

    help: ClassVar[str] = "given prompt → given response"
    options: ClassVar[type[TaskOptions]] = InstructionOptions
    needs: ClassVar[str | None] = "instructions"
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "instruction": Placeholders(prompt=("prompt",), response=("response",))
    }

    def size(self, source: Source) -> int:
        """Number of prompts."""
        return int(source.instructions.num_rows)

    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """One part."""
        assert isinstance(options, InstructionOptions)
        texts = {
            name: source.instructions.column(name).combine_chunks()
            for name in ("prompt", "response")
        }
        columns = {
            name: Texts(values, bool(options.sid_tokens)).take(rows)
            for name, values in texts.items()
        }
        return [Part("instruction", columns, rows)]
