"""SID → title and title → SID of each item, without user histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sidtune.base.ragged import Ragged
from sidtune.tasks.base import Items, Part, Placeholders, Source, Task, TaskOptions


class ItemFeatureOptions(TaskOptions):
    """`directions`: both, a single one, or one per item chosen at random by the seed."""

    directions: Literal["both", "sid_to_title", "title_to_sid", "one"] = Field(
        default="both", description="`both`, a single one, or `one` drawn for each item"
    )


class ItemFeature(Task):
    """One example per item and direction, also for items that share a SID."""

    help: ClassVar[str] = "SID → title, and title → SID"
    options: ClassVar[type[TaskOptions]] = ItemFeatureOptions
    forms: ClassVar[Mapping[str, Placeholders]] = {
        "item_feature.sid_to_title": Placeholders(prompt=("sid",), response=("title",)),
        "item_feature.title_to_sid": Placeholders(prompt=("title",), response=("sid",)),
    }

    def size(self, source: Source) -> int:
        """Number of items."""
        return len(source.catalogue.ids)

    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """One part per direction."""
        assert isinstance(options, ItemFeatureOptions)
        forward, backward = self.forms
        if options.directions == "one":
            drawn = np.random.default_rng(seed).random(self.size(source))[rows] < 0.5
            return [_part(forward, rows[drawn]), _part(backward, rows[~drawn])]
        wanted = {"both": [forward, backward]}.get(
            options.directions, [f"item_feature.{options.directions}"]
        )
        return [_part(form, rows) for form in wanted]


def _part(form: str, items: NDArray[np.int64]) -> Part:
    positions = Ragged.column(items.astype(np.int32))
    columns = {name: Items(positions, name) for name in ("sid", "title", "description")}
    return Part(form, columns, items)
