"""`events` and `catalogue`: raw tables, and what becomes of them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sidtune.config.section import ExpandedPath, Positive, Section

EventFormat = Literal["recbole", "movielens", "amazon", "sequences"]
Column = Annotated[str, Field(min_length=1)]
Number = Annotated[float, Field(ge=0)]
# As in LC-Rec and TIGER.
HISTORY_OF_ROWS = 20
# The largest share first, as in MiniOneRec.
SHARES = (8, 1, 1)


def _moment(given: object) -> object:
    """A date of YAML, or a text in ISO 8601, as a point in time."""
    if isinstance(given, date) and not isinstance(given, datetime):
        return datetime(given.year, given.month, given.day, tzinfo=UTC)
    if isinstance(given, int | float):
        raise ValueError("expected a date such as 2018-10-01")
    return given


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, BeforeValidator(_moment), AfterValidator(_in_utc)]


class SparkEngine(Section):
    """Where Spark runs: `local[2]`, or the address of a cluster's master."""

    spark: Annotated[str, Field(min_length=1)]


class CutDates(Section):
    """Targets from `valid` on are validation, those from `test` on are test."""

    valid: Moment
    test: Moment

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.test <= self.valid:
            raise ValueError("test must be later than valid")
        return self


class KCore(Section):
    """The fewest events that a user and an item have."""

    user: Positive
    item: Positive


class EventsConfig(Section):
    """The events, the steps that choose among them, and the split."""

    files: ExpandedPath | None = None
    database: Annotated[str, Field(min_length=1)] | None = None
    table: Column | None = None
    format: EventFormat | None = None
    user: Column | None = None
    item: Column | None = None
    time: Column | None = None
    position: Column | None = None
    rating: Column | None = None
    type: Column | None = None
    time_unit: Literal["auto", "s", "ms", "us", "ns", "order"] = "auto"
    start: Moment | None = None
    end: Moment | None = None
    types: Annotated[tuple[str, ...] | dict[str, Number], Field(min_length=1)] | None = None
    min_rating: float | None = None
    repeat_gap: Number | None = None
    k_core: Positive | KCore | None = None
    latest: Positive | None = None
    split: Literal["leave_one_out", "global_time"] | CutDates = "leave_one_out"
    shares: tuple[Positive, Positive, Positive] | None = None
    history: Positive | None = None
    engine: Literal["duckdb"] | SparkEngine = "duckdb"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.files is None) == (self.database is None):
            raise ValueError("give files, or database and table")
        if (self.database is None) != (self.table is None):
            raise ValueError("database and table belong together")
        if self.format and self.database:
            raise ValueError("format is about files, and has no effect on a table of a database")
        return self

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        if self.split == "leave_one_out" and self.history is not None:
            raise ValueError(
                "history has no effect with split: leave_one_out, which writes whole sequences; use"
                " data.history"
            )
        if self.shares is not None and self.split != "global_time":
            raise ValueError("shares has no effect without split: global_time")
        return self

    @model_validator(mode="after")
    def _order_is_no_date(self) -> Self:
        if self.time_unit != "order":
            return self
        dated = {"start": self.start, "end": self.end, "repeat_gap": self.repeat_gap}
        for name, value in dated.items():
            if value is not None:
                raise ValueError(f"{name} needs dates, and time_unit: order has none")
        if self.split != "leave_one_out":
            raise ValueError(
                "a split by dates needs dates, and time_unit: order has none; use split:"
                " leave_one_out"
            )
        return self

    @model_validator(mode="after")
    def _window_is_open(self) -> Self:
        if self.start and self.end and self.end <= self.start:
            raise ValueError("end must be later than start")
        return self

    @property
    def cores(self) -> KCore | None:
        """The fewest events of a user and of an item."""
        return (
            KCore(user=self.k_core, item=self.k_core)
            if isinstance(self.k_core, int)
            else self.k_core
        )

    @property
    def weights(self) -> dict[str, float] | None:
        """The weight of each type of event that is kept, where types have weights."""
        return self.types if isinstance(self.types, dict) else None


class CatalogueConfig(Section):
    """The items and their texts."""

    file: ExpandedPath
    format: EventFormat | None = None
    id: Column | None = None
    title: Column | None = None
    text: tuple[Column, ...] | None = None
    html: Literal["clean", "keep", "drop"] = "clean"
    max_title_words: Positive | None = None
    keep_untouched: bool = False


class PrepareConfig(Section):
    """What `sidtune prepare` reads of a configuration."""

    output_dir: ExpandedPath
    events: EventsConfig
    catalogue: CatalogueConfig | None = None
