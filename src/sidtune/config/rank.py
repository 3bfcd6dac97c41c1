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

    fit: Literal["auto", "never"] = "auto"
    sources: tuple[SourceName, ...] | None = None
    rows: Positive = 10_000
    trees: Positive = 150
    leaves: Annotated[int, Field(ge=2, le=1_024)] = 7
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05

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
