"""Title history → the next item's title."""

from collections.abc import Mapping
from typing import ClassVar

from sidtune.tasks.base import HistoryTask, Placeholders


class TitleNext(HistoryTask):
    """One example per interaction row."""

    help: ClassVar[str] = "title history → next title"
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "title_next": Placeholders(prompt=("history_titles",), response=("target_title",))
    }
