"""`rank`: the ranker that is fitted beside a model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from sidtune.config.search import BEAMS
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
            "sources of the ranker: some of `model`, `transitions`, `co_occurrence`,"
            " `text`, `behaviour`, `sids`, `popularity` and `history`; null: all of them"
        ),
    )
    rows: Positive = Field(
        default=10_000, description="validation rows that it is fitted on, drawn by a fixed seed"
    )
    beams: Positive = Field(
        default=BEAMS,
        description=(
            "beam width of the model's lists that the ranker is fitted on. Later lists have"
            " the same width, unless `--beams` gives another one"
        ),
    )
    trees: Positive = Field(default=150, description="number of trees")
    leaves: Annotated[int, Field(ge=2, le=1_024)] = Field(default=7, description="leaves of a tree")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05, description="learning rate of the trees: factor on what each one adds"
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

    @model_validator(mode="after")
    def _beams_have_an_effect(self) -> Self:
        if "beams" in self.model_fields_set and "model" not in self.used:
            raise ValueError("beams has no effect without the source model; remove it")
        return self

    @property
    def used(self) -> tuple[SourceName, ...]:
        """The sources, all of them by default."""
        return SOURCE_NAMES if self.sources is None else self.sources

    @property
    def fitting(self) -> dict[str, Any]:
        """All that a fitted ranker depends on, as JSON values."""
        return self.model_dump(mode="json", exclude={"fit"})
