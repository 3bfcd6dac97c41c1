"""SID history and the user's preferences as text → the next item's SID."""

from collections.abc import Mapping
from typing import ClassVar

from sidtune.tasks.base import Placeholders
from sidtune.tasks.preference import Preference


class PreferenceToSid(Preference):
    """One example per preference record."""

    help: ClassVar[str] = "SID history and preference → next SID"
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "preference_to_sid": Placeholders(
            prompt=("history_sids", "preference"), response=("target_sid",)
        )
    }
