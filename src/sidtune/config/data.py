"""`data`: the input files, and which of their rows are used."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from sidtune.config.section import ExpandedPath, Positive, Section

SPLITS = ("train", "valid", "test")


# Keys of `data`, and the file each of them applies to.
IDLE_WITHOUT = {"description_tokens": "items"}


# As in LC-Rec and TIGER. Files of rows contain finished histories.
HISTORY_OF_INTERACTIONS = 20


class DataConfig(Section):
    """The input files, and which of their rows are used."""

    items: ExpandedPath | None = None
    index: ExpandedPath
    train: ExpandedPath | None = None
    valid: ExpandedPath | None = None
    test: ExpandedPath | None = None
    interactions: ExpandedPath | None = None
    history: Positive | None = None
    unique_sids: bool = False
    preferences: ExpandedPath | None = None
    instructions: ExpandedPath | None = None
    sample: Positive | None = None
    dedup: bool = False
    description_tokens: Positive = 128

    @model_validator(mode="after")
    def _one_way_to_rows(self) -> Self:
        given = [name for name in SPLITS if getattr(self, name) is not None]
        if self.interactions and given:
            raise ValueError(
                f"interactions contains all splits: remove {' and '.join(given)}, or interactions"
            )
        if not self.interactions and not {"train", "valid"} <= set(given):
            raise ValueError("rows are missing: give train and valid (and test), or interactions")
        return self

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        for name, needed in IDLE_WITHOUT.items():
            if name in self.model_fields_set and getattr(self, needed) is None:
                raise ValueError(f"{name} has no effect without {needed}")
        return self

    @property
    def longest_history(self) -> int | None:
        """Histories are cut to this many latest items; None leaves them as in their rows."""
        return self.history or (HISTORY_OF_INTERACTIONS if self.interactions else None)

    def rows_file(self, split: str) -> Path | None:
        """The file of a split's rows, if one is configured."""
        file: Path | None = self.interactions or getattr(self, split)
        return file
