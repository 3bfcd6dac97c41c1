"""SID history → the next item's SID: the default evaluation task."""

from collections.abc import Mapping
from typing import ClassVar

from sidtune.tasks.base import HistoryTask, Placeholders


class SidNext(HistoryTask):
    """One example per interaction row."""

    help: ClassVar[str] = "SID history → next SID"
    recommends: ClassVar[bool] = True
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "sid_next": Placeholders(prompt=("history_sids",), response=("target_sid",))
    }
