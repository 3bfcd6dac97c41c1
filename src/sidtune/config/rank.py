"""`rank`: the ranker that is fitted beside a model."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from sidtune.config.section import Positive, Section

SourceName = Literal[
    "model",
    "transitions",
    "co_occurrence",
    "text",
    "behaviour",
    "sids",
    "popularity",
    "history",
]
SOURCE_NAMES: tuple[SourceName, ...] = get_args(SourceName)


class RankConfig(Section):
    """The ranker that is fitted beside a model."""

    fit: Literal["auto", "never"] = Field(
        default="auto",
        description=(
            "`auto` fits the ranker at the end of training where there are validation"
            " rows; `never` leaves it to `sidtune rank`"
        ),
    )
    sources: tuple[SourceName, ...] | None = Field(
        default=None,
        description=(
            "what the ranker knows: some of `model`, `transitions`, `co_occurrence`,"
            " `text`, `behaviour`, `sids`, `popularity` and `history`; null: all of them"
        ),
    )
    rows: Positive = Field(
        default=10_000, description="validation rows that it is fitted on, drawn by a fixed seed"
    )
    trees: Positive = Field(default=150, description="number of trees")
    leaves: Annotated[int, Field(ge=2, le=1_024)] = Field(default=7, description="leaves of a tree")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05, description="factor on what each tree adds"
    )

    @model_validator(mode="after")
    def _sources_rank(self) -> Self:
        if len(set(self.used)) < len(self.used):
            raise ValueError("sources: a source stands twice")
        if not {"transitions", "co_occurrence", "text", "model"} & set(self.used):
            raise ValueError(
                "sources: give at least one of model, transitions, co_occurrence and text"
            )
        return self

    @property
    def used(self) -> tuple[SourceName, ...]:
        """The sources, all of them by default."""
        return SOURCE_NAMES if self.sources is None else self.sources
