"""A given prompt → its given response: instruction data of any kind, to mix in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sidtune.tasks.base import Part, Placeholders, Source, TaskOptions, Texts


class Instruction:
    """One example for each line of the instruction file."""

    options: ClassVar[type[TaskOptions]] = TaskOptions
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "instruction": Placeholders(prompt=("prompt",), response=("response",))
    }

    def size(self, source: Source) -> int:
        """Number of prompts."""
        return int(source.instructions.num_rows)

    def build(self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int) -> Sequence[Part]:
        """One part."""
        columns = {
            name: Texts(source.instructions.column(name).combine_chunks()).take(rows) for name in ("prompt", "response")
        }
        return [Part("instruction", columns, rows)]
