"""`data`: the input files, and which of their rows are used."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from sidtune.config.section import ExpandedPath, Positive, Section

SPLITS = ("train", "valid", "test")


# As in LC-Rec and TIGER. Files of rows contain finished histories.
HISTORY_OF_INTERACTIONS = 20


class DataConfig(Section):
    """The input files, and which of their rows are used."""

    items: ExpandedPath | None = Field(
        default=None,
        description=(
            "left out: what `sidtune prepare` made of `catalogue`. `.item.json` (item id →"
            " `title`, and optionally `description` and other fields), or Parquet with the"
            " columns `item_id`, `title` and optionally `description`. A title is a text"
            " that is not blank, or a number, which is read as text (1984 and 1984.0 are"
            ' both "1984"). Without this file, only tasks that need no text can be trained'
        ),
    )
    index: ExpandedPath = Field(
        description=(
            "left out: what `sidtune sids` made. `.index.json`: item id → list of SID tokens, of"
            " any depth. Ids and tokens are not empty and hold no line breaks, and ids have no"
            " leading or trailing blanks. Lists of whole numbers are read as codes: `[3, 14, 159]`"
            " is `<a_3><b_14><c_159>` (after level `z` come `aa`, `ab`, …), and `check` and"
            " `train` report this. One file holds either tokens or codes"
        )
    )
    train: ExpandedPath | None = Field(
        default=None,
        description=(
            "interaction rows: CSV, Parquet or JSONL, plain or `.gz`; required unless"
            " `data.interactions` or `events` is given"
        ),
    )
    valid: ExpandedPath | None = Field(
        default=None, description="the same for validation; required with `data.train`"
    )
    test: ExpandedPath | None = Field(
        default=None, description="the same for the final evaluation; training never reads it"
    )
    interactions: ExpandedPath | None = Field(
        default=None,
        description=(
            "in place of these three: `.inter.json`, user → item ids in time order, or Parquet"
            " with the columns `user_id` and `items`, as `sidtune prepare` writes it; split by"
            " leaving one out"
        ),
    )
    history: Positive | None = Field(
        default=None,
        description=(
            "longest history in items, in every split; the latest items are kept. null: 20 with"
            " `data.interactions`, as in LC-Rec and TIGER; otherwise the histories in the rows are"
            " used as they are"
        ),
    )
    unique_sids: bool = Field(
        default=False,
        description=(
            "each item that shares its SID with others gets one more token (`<item_0>`,"
            " `<item_1>`, …), as in TIGER, so that every item can be generated"
        ),
    )
    preferences: ExpandedPath | None = Field(
        default=None, description="preference records, for the two preference tasks"
    )
    instructions: ExpandedPath | None = Field(
        default=None, description="JSONL of `prompt` and `response`, for the instruction task"
    )
    sample: Positive | None = Field(
        default=None,
        description=(
            "at most this many rows (users, for `sid_sequence` and"
            " `sid_sequence_reversed`) per training task, drawn by seed; validation is"
            " not sampled"
        ),
    )
    dedup: bool = Field(
        default=False,
        description=(
            "drop training rows whose target repeats the last item of the history; not"
            " available with tasks of whole histories"
        ),
    )
    description_tokens: Positive = Field(
        default=128, description="descriptions are cut to this many tokens"
    )

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
        if "description_tokens" in self.model_fields_set and self.items is None:
            raise ValueError("description_tokens has no effect without items")
        return self

    @property
    def longest_history(self) -> int | None:
        """Histories are cut to this many latest items; None leaves them as in their rows."""
        return self.history or (HISTORY_OF_INTERACTIONS if self.interactions else None)

    def rows_file(self, split: str) -> Path | None:
        """The file of a split's rows, if one is configured."""
        file: Path | None = self.interactions or getattr(self, split)
        return file
