"""Points in time as microseconds since 1970, whatever way a table writes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sidtune.base.errors import UserError
from sidtune.events.engine import Engine

if TYPE_CHECKING:
    import ibis.expr.types as ir

# From 1973 on, and up to the year 5138, the number of digits tells the units apart.
UNITS = ("s", "ms", "us", "ns")
SMALLEST = {"s": 10**8, "ms": 10**11, "us": 10**14, "ns": 10**17}
SECOND = 1_000_000
# 2100-01-01. What lies behind it is a unit or a default that was mistaken for a date.
LATEST = 4_102_444_800 * SECOND
ISO = (
    r"^\s*([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
    r"(?:[T ]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?)?"
    r"\s*(Z|z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?\s*$"
)
WHOLE = r"^\s*-?[0-9]{1,19}\s*$"


def micros_of(moment: datetime) -> int:
    """Microseconds since 1970 of a point in time."""
    return round(moment.timestamp() * SECOND)


@dataclass(frozen=True)
class Clock:
    """How the times of a table are read.

    Args:
        unit: of its numbers; `order` where they only count, and None where there are no numbers.
        least: the smallest number that is a time; 0, say, stands for a missing time where the unit
            was found out.
    """

    unit: str | None
    least: int = 0

    @property
    def dated(self) -> bool:
        """Whether times are dates."""
        return self.unit != "order"

    def micros(self, table: ir.Table) -> ir.IntegerValue:
        """Microseconds since 1970, or the order; null for what is no time, or none between 1970 and
        2100.
        """
        import ibis

        number, real, moment = table["number"], table["real"], table["moment"]
        if self.unit == "order":
            return number.coalesce(real.cast("int64"))
        bounded = moment.between(0, LATEST).ifelse(moment, ibis.null("int64"))
        if self.unit is None:
            return bounded
        per_unit = {"s": SECOND, "ms": 1_000, "us": 1, "ns": 0.001}[self.unit]
        most = int(LATEST / per_unit)
        # Out of range first: what is absurd would overflow.
        whole = number.between(self.least, most).ifelse(number, ibis.null("int64"))
        scaled = whole // 1_000 if self.unit == "ns" else whole * int(per_unit)
        fraction = real.between(self.least, most).ifelse(real, ibis.null("float64"))
        return scaled.cast("int64").coalesce((fraction * per_unit).round().cast("int64"), bounded)

    def given(self, table: ir.Table) -> ir.BooleanValue:
        """Whether there is a time at all, in range or not."""
        return table["number"].notnull() | table["real"].notnull() | table["moment"].notnull()


def time_columns(engine: Engine, column: ir.Value) -> dict[str, ir.Value]:
    """The column of times as `number` (whole), `real`, `moment` (microseconds) and `zoned`, null
    where it is not that.

    Raises:
        UserError: for a type that is no time.
    """
    import ibis

    kind = column.type()
    found: dict[str, ir.Value] = {
        "number": ibis.null("int64"),
        "real": ibis.null("float64"),
        "moment": ibis.null("int64"),
        "zoned": ibis.null("boolean"),
    }
    if kind.is_integer():
        # An unsigned number may be too large for int64; such a one is no time.
        within = column <= 2**63 - 1 if kind.is_unsigned_integer() else ibis.literal(True)
        found["number"] = within.ifelse(column, ibis.null(kind)).cast("int64")
    elif kind.is_floating() or kind.is_decimal():
        real = column.cast("float64")
        found["real"] = real.isnan().ifelse(ibis.null("float64"), real)
    elif kind.is_timestamp() or kind.is_date():
        found["moment"] = engine.micros(column)
        found["zoned"] = ibis.literal(getattr(kind, "timezone", None) is not None)
    elif kind.is_string():
        found |= _of_text(column)
    else:
        raise UserError(
            f"the column of times is of type {kind}", "Write dates, numbers, or text in ISO 8601."
        )
    return found


def _of_text(column: ir.Value) -> dict[str, ir.Value]:
    import ibis

    text = trimmed(column)
    whole = text.re_search(WHOLE)
    real = text.try_cast("float64")
    parts = [text.re_extract(ISO, group) for group in range(9)]
    number = [part.nullif("").try_cast("int64") for part in parts]
    year, month, day = number[1:4]
    hour, minute, second = (part.fill_null(0) for part in number[4:7])
    fraction = ibis.coalesce(
        (parts[7] + "000000").substr(0, 6).try_cast("int64"), ibis.literal(0, "int64")
    )
    zone = parts[8].nullif("")
    in_range = (
        month.between(1, 12)
        & (day >= 1)
        & (day <= _days_of(year, month))
        & hour.between(0, 23)
        & minute.between(0, 59)
        & second.between(0, 60)
    )
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - _offset(zone)
    return {
        "number": whole.ifelse(text.try_cast("int64"), ibis.null("int64")),
        "real": (whole | real.isnan() | real.isinf()).ifelse(ibis.null("float64"), real),
        "moment": in_range.ifelse(seconds * SECOND + fraction, ibis.null("int64")),
        "zoned": (parts[0] != "").ifelse(zone.notnull(), ibis.null("boolean")),
    }


def trimmed(text: ir.StringValue) -> ir.StringValue:
    """A text without blanks around it.

    Not Ibis's `strip`: what that writes for Spark takes the letter v for a blank.
    """
    return text.re_replace(r"^[ \t\r\n]+|[ \t\r\n]+$", "")


def _offset(zone: ir.StringValue) -> ir.IntegerValue:
    """Seconds that a zone is ahead of UTC; 0 for none, Z and UTC."""
    import ibis

    digits = zone.replace(":", "")
    sign = zone.startswith("-").ifelse(-1, 1)
    hours = digits.substr(1, 2).try_cast("int64")
    minutes = digits.substr(3, 2).nullif("").try_cast("int64").fill_null(0)
    return (
        zone.re_search(r"^[+-]")
        .ifelse(sign * (hours * 60 + minutes) * 60, 0)
        .fill_null(ibis.literal(0))
    )


def _days(year: ir.IntegerValue, month: ir.IntegerValue, day: ir.IntegerValue) -> ir.IntegerValue:
    """Days since 1970-01-01 in the Gregorian calendar, whose year begins in March here: the leap
    day comes last.
    """
    y = year - (month <= 2).ifelse(1, 0)
    era, of_era = y // 400, y % 400
    of_year = (153 * (month + (month > 2).ifelse(-3, 9)) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return days.cast("int64")


def _days_of(year: ir.IntegerValue, month: ir.IntegerValue) -> ir.IntegerValue:
    leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
    return (month == 2).ifelse(leap.ifelse(29, 28), month.isin([4, 6, 9, 11]).ifelse(30, 31))


def set_clock(engine: Engine, table: ir.Table, unit: str, column: str) -> Clock:
    """How the times of a table are to be read.

    Args:
        table: with the columns of `time_columns`.
        unit: that of the configuration.
        column: where they come from, for messages.

    Raises:
        UserError: for times in several units, with and without zones, and for numbers that only
            count.
    """
    number = table["number"].cast("float64").coalesce(table["real"])
    bounds = [*SMALLEST.values(), float("inf")]
    counts = {
        name: ((number >= low) & (number < high)).sum() for name, low, high in _ranges(bounds)
    }
    counts |= {
        "order": number.between(0, SMALLEST["s"] - 1).sum(),
        "moment": table["moment"].count(),
        "zoned": (table["zoned"]).sum(),
        "plain": (~table["zoned"]).sum(),
    }
    found = {
        name: int(count or 0)
        for name, count in engine.fetch(table.aggregate(**counts)).to_pylist()[0].items()
    }
    _refuse_mixtures(found, unit, column)
    units = {name: found[name] for name in UNITS if found[name]}
    if unit != "auto":
        return Clock(unit)
    if not units and found["order"]:
        raise UserError(
            f"{column}: the times look like an order and not like dates: all numbers are below"
            f" {SMALLEST['s']:,}",
            "Say what they are: events.time_unit: order, or s for seconds since 1970.",
        )
    chosen = next(iter(units), None)
    return Clock(chosen, SMALLEST[chosen] if chosen else 0)


def _ranges(bounds: list[float]) -> list[tuple[str, float, float]]:
    return list(zip(UNITS, bounds[:-1], bounds[1:], strict=True))


def _refuse_mixtures(found: dict[str, int], unit: str, column: str) -> None:
    if found["zoned"] and found["plain"]:
        raise UserError(
            f"{column}: {found['zoned']:,} times have a time zone and {found['plain']:,} have none",
            "Write all of them with a zone, or all of them in UTC without one.",
        )
    kinds = {f"{name} since 1970": found[name] for name in UNITS if found[name]}
    if unit != "auto":
        kinds = {f"numbers ({unit})": sum(found[name] for name in (*UNITS, "order"))}
    if found["moment"]:
        kinds["dates as text"] = found["moment"]
    if len([count for count in kinds.values() if count]) > 1:
        listed = ", ".join(f"{count:,} in {name}" for name, count in kinds.items())
        hint = "Write all of them the same way."
        if unit == "auto" and not found["moment"]:
            hint += (
                " Where the few are errors, name the unit of the others by events.time_unit: times"
                " out of range are "
            )
            hint += "left out and counted."
        raise UserError(f"{column}: times in several units: {listed}", hint)
