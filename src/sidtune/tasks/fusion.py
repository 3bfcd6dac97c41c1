"""SID history → title or description of the next item: relates SIDs to language within
a sequence.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from sidtune.tasks.base import HistoryTask, Placeholders, TaskOptions


class FusionOptions(TaskOptions):
    """`target`: the title, the description, or one example for each of them."""

    target: Literal["title", "description", "both"] = Field(
        default="title", description="`title`, `description`, or `both`: an example for each"
    )


class Fusion(HistoryTask):
    """One example per interaction row and selected text."""

    help: ClassVar[str] = "SID history → title of the next item"
    options: ClassVar[type[TaskOptions]] = FusionOptions
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "fusion.title": Placeholders(prompt=("history_sids",), response=("target_title",)),
        "fusion.description": Placeholders(
            prompt=("history_sids",), response=("target_description",)
        ),
    }

    def chosen_forms(self, options: TaskOptions) -> Sequence[str]:
        """The template names of `options.target`."""
        assert isinstance(options, FusionOptions)
        return list(self.forms) if options.target == "both" else [f"fusion.{options.target}"]
