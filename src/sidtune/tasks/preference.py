"""SID history → the user's preferences as text, followed by the next item's SID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sidtune.data.history_keys import history_keys
from sidtune.tasks.base import Part, Placeholders, Source, Task, TaskOptions, Texts, history_columns


class Preference(Task):
    """One example per preference record."""

    help: ClassVar[str] = "SID history → preference in words, then next SID"
    needs: ClassVar[str | None] = "preferences"
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "preference": Placeholders(prompt=("history_sids",), response=("preference", "target_sid"))
    }

    def size(self, source: Source) -> int:
        """Number of preference records."""
        return int(source.preferences.num_rows)

    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """One part per template."""
        texts = source.preferences.column("preference").combine_chunks()
        columns = history_columns(source.preference_rows, rows) | {
            "preference": Texts(texts).take(rows)
        }
        users = source.preference_rows.users
        return [
            Part(form, columns, rows, history_keys(users, self.forms[form].prompt[0])[rows])
            for form in self.forms
        ]
