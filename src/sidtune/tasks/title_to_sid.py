"""Title history → the next item's SID."""

from collections.abc import Mapping
from typing import ClassVar

from sidtune.tasks.base import HistoryTask, Placeholders


class TitleToSid(HistoryTask):
    """One example per interaction row."""

    help: ClassVar[str] = "title history → next SID"
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "title_to_sid": Placeholders(prompt=("history_titles",), response=("target_sid",))
    }
