"""`events` and `catalogue`: raw tables, and what becomes of them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

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
    # Pydantic would count seconds since 1970, also in the text "20181001".
    if isinstance(given, int | float) or re.fullmatch(r"[+-]?[\d.]+", str(given)):
        raise ValueError("expected a date such as 2018-10-01")
    return given


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    AfterValidator(_in_utc),
    # YAML has dates without a time too, which the format `date-time` does not allow.
    WithJsonSchema({"type": "string", "format": "date, or date and time"}),
]


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

    files: ExpandedPath | None = Field(
        default=None,
        description=(
            "a file, a folder, or a pattern such as `events/*.parquet`: Parquet, CSV,"
            " TSV or JSON Lines (the last three also with `.gz`), all of one kind"
        ),
    )
    database: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "in place of `files`: a DuckDB file, or an address that Ibis connects to,"
            " such as `postgres://host/shop`, whose driver is installed"
        ),
    )
    table: Column | None = Field(default=None, description="the table of `database`")
    format: EventFormat | None = Field(
        default=None,
        description=(
            "`recbole`, `movielens`, `amazon` or `sequences`: how files of a public"
            " data set are read"
        ),
    )
    user: Column | None = Field(
        default=None, description="column of the user id. null: found by the usual names"
    )
    item: Column | None = Field(
        default=None, description="column of the item id. null: found by the usual names"
    )
    time: Column | None = Field(
        default=None, description="column of the time. null: found by the usual names"
    )
    position: Column | None = Field(
        default=None,
        description=(
            "column that gives the order of a user's events at equal times. null:"
            " `position`, if there is such a column. Without a column of times it orders all"
            " events, and settings that need dates are refused"
        ),
    )
    rating: Column | None = Field(
        default=None, description="column of the rating. null: found by the usual names"
    )
    type: Column | None = Field(
        default=None, description="column of the type of an event. null: found by the usual names"
    )
    time_unit: Literal[
        "auto", "s", "ms", "us", "ns", "digits", "order", "day_first", "month_first"
    ] = Field(
        default="auto",
        description=(
            "`s`, `ms`, `us` or `ns` since 1970, for times that are numbers; `digits`: numbers"
            " such as 20200427; `order`: numbers that only give an order; `day_first` or"
            " `month_first`: texts such as 03/04/2020. `auto` recognises the unit by the size of"
            " the numbers, and the order of day and month by days above 12; it refuses a column"
            " with several units, or with both orders"
        ),
    )
    start: Moment | None = Field(
        default=None,
        description=(
            "events before this date, or date and time, are left out. It is in UTC unless"
            " it names a time zone"
        ),
    )
    end: Moment | None = Field(
        default=None, description="events at or after this date, or date and time, are left out"
    )
    types: Annotated[tuple[str, ...] | dict[str, Number], Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "the types of events to keep: a list, or a mapping from type to weight. Weights"
            " are written beside the events"
        ),
    )
    min_rating: float | None = Field(
        default=None, description="events with a lower rating, or without one, are left out"
    )
    repeat_gap: Number | None = Field(
        default=None,
        description=(
            "in seconds: an event is left out if the same user had the same item at most"
            " this long before"
        ),
    )
    k_core: Positive | KCore | None = Field(
        default=None,
        description=(
            "users and items with fewer events than this are left out, repeatedly, until"
            " all that remain have enough. One number for both, or `{user: 5, item: 3}`"
        ),
    )
    latest: Positive | None = Field(
        default=None, description="keep at most this many events of each user, the latest"
    )
    split: Literal["leave_one_out", "global_time"] | CutDates = Field(
        default="leave_one_out",
        description=(
            "`leave_one_out`: whole histories, whose last item is for testing and the one"
            " before it for validation; `global_time`: rows, split 8:1:1 by the time of the"
            " target; `{valid: DATE, test: DATE}`: rows, split at these dates"
        ),
    )
    shares: tuple[Positive, Positive, Positive] | None = Field(
        default=None,
        description=(
            "with `global_time`: the shares of train, valid and test, in place of 8, 1, 1"
        ),
    )
    history: Positive | None = Field(
        default=None,
        description=(
            "with a split by time: the largest number of items in the history of a row; the"
            " latest are kept. null: 20"
        ),
    )
    engine: Literal["duckdb"] | SparkEngine = Field(
        default="duckdb",
        description=(
            "what computes: `duckdb`, inside the process; or Spark, such as `{spark:"
            " local[2]}` or `{spark: spark://host:7077}`"
        ),
    )

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

    file: ExpandedPath = Field(
        description=(
            "Parquet, CSV, TSV, JSON Lines, or `.json` of item id → record; also a"
            " pattern or a folder"
        )
    )
    format: EventFormat | None = Field(default=None, description="as `events.format`")
    id: Column | None = Field(
        default=None,
        description=(
            "column of the item id. null: the column with the same name as the item column"
            " of the events, or found by the usual names"
        ),
    )
    title: Column | None = Field(
        default=None, description="column of the title. null: found by the usual names"
    )
    text: tuple[Column, ...] | None = Field(
        default=None, description="the other columns to keep; null keeps all"
    )
    html: Literal["clean", "keep", "drop"] = Field(
        default="clean",
        description=(
            "HTML in texts: `clean` removes tags and resolves entities; `drop` leaves out"
            " items whose title contains HTML; `keep` changes nothing"
        ),
    )
    max_title_words: Positive | None = Field(
        default=None, description="items with longer titles are left out"
    )
    keep_untouched: bool = Field(
        default=False,
        description="keep items that have no event after the filters, so that they get SIDs too",
    )


class PrepareConfig(Section):
    """What `sidtune prepare` reads of a configuration."""

    output_dir: ExpandedPath
    events: EventsConfig
    catalogue: CatalogueConfig | None = None
