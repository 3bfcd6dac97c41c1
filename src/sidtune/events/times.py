"""Points in time as microseconds since 1970, whatever way a table writes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from sidtune.base.errors import UserError
from sidtune.events.engine import Engine
from sidtune.events.moments import SECOND, TEXT, moment_of, of_text, trimmed

if TYPE_CHECKING:
    import ibis.expr.types as ir

# From 1973 on, and up to the year 5138, the number of digits tells the units apart.
UNITS = ("s", "ms", "us", "ns")
SMALLEST = {"s": 10**8, "ms": 10**11, "us": 10**14, "ns": 10**17}
# What a time of the day takes at the end of a date in digits: 235959.
DAY_DIGITS = 1_000_000
DATES, LAST_SECOND = (19700101, 20991231), 20991231235959
# Of dates in digits, so many may be broken: 20201345.
BROKEN_SHARE = 0.01
# 2100-01-01. What lies behind it is a unit or a default that was mistaken for a date.
LATEST = 4_102_444_800 * SECOND
TEXTS = ("day_first", "month_first")
WHOLE = r"^\s*-?[0-9]{1,19}\s*$"
# A floating-point number beyond this may be none of int64.
LARGEST_ROUNDED = 2**62


def micros_of(moment: datetime) -> int:
    """Microseconds since 1970 of a point in time."""
    return round(moment.timestamp() * SECOND)


@dataclass(frozen=True)
class Clock:
    """How the times of a table are read.

    Args:
        unit: of its numbers; `digits` where they are dates such as 20150427, `order` where they
            only count, and None where there are no numbers.
        least: the smallest number that is a time; 0, say, stands for a missing time where the unit
            was found out.
        text: the column of texts with the year last, `day_first` or `month_first`, if there are
            such.
    """

    unit: str | None
    least: int = 0
    text: str | None = None

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
            return number.coalesce(rounded(real))
        if self.unit == "digits":
            return _of_digits(table)
        if self.text:
            moment = moment.coalesce(table[self.text])
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
        names = ["number", "real", "moment", *([self.text] if self.text else [])]
        return reduce(or_, (table[name].notnull() for name in names))


def time_columns(
    engine: Engine, table: ir.Table, name: str | None, where: str
) -> dict[str, ir.Value]:
    """The column of times as `number` (whole), `real`, `moment` (microseconds), `day_first` and
    `month_first` (the same of texts with the year last), `zoned`, and `unread` (a text of another
    form), null where it is not that.

    Args:
        table: with the parts of this column, if it is of text (`with_parts`).
        name: of the column; None where there is none.
        where: the column, for messages.

    Raises:
        UserError: for a type that is no time.
    """
    import ibis

    column = table[name] if name else ibis.null("int64")
    kind = column.type()
    number, real = numbers(column)
    found: dict[str, ir.Value] = {
        "number": number,
        "real": real,
        "moment": ibis.null("int64"),
        "day_first": ibis.null("int64"),
        "month_first": ibis.null("int64"),
        "zoned": ibis.null("boolean"),
        "unread": ibis.null("string"),
    }
    if kind.is_timestamp() or kind.is_date():
        found["moment"] = engine.micros(column)
        found["zoned"] = ibis.literal(getattr(kind, "timezone", None) is not None)
    elif kind.is_string():
        found |= of_text(table)
        text = table[TEXT].nullif("")
        known = number.notnull() | real.notnull() | found["zoned"].notnull()
        found["unread"] = known.ifelse(ibis.null("string"), text)
    elif not kind.is_numeric():
        raise UserError(
            f"{where}: expected times, found values of type {kind}",
            "Write dates, numbers, or dates as text.",
        )
    return found


def numbers(column: ir.Value) -> tuple[ir.IntegerValue, ir.FloatingValue]:
    """The whole numbers of a column, and its other numbers; null where it has neither."""
    import ibis

    kind, none, no_real = column.type(), ibis.null("int64"), ibis.null("float64")
    if kind.is_integer():
        # An unsigned number may be too large for int64; such a one is none.
        within = column <= 2**63 - 1 if kind.is_unsigned_integer() else ibis.literal(True)
        return within.ifelse(column, ibis.null(kind)).cast("int64"), no_real
    if kind.is_string():
        text = trimmed(column)
        whole, real = text.re_search(WHOLE), text.try_cast("float64")
        no_number = whole | real.isnan() | real.isinf()
        return whole.ifelse(text.try_cast("int64"), none), no_number.ifelse(no_real, real)
    if kind.is_floating() or kind.is_decimal():
        real = column.cast("float64")
        return none, real.isnan().ifelse(no_real, real)
    return none, no_real


def rounded(real: ir.FloatingValue) -> ir.IntegerValue:
    """A number as int64; null where it is too large."""
    import ibis

    known = real.between(-LARGEST_ROUNDED, LARGEST_ROUNDED)
    return known.ifelse(real, ibis.null("float64")).cast("int64")


def _like_digits(number: ir.NumericValue) -> ir.BooleanValue:
    """Numbers in the range of those whose digits may be a date, or a date and a time."""
    return number.between(*DATES) | number.between(DATES[0] * DAY_DIGITS, LAST_SECOND)


def _of_digits(table: ir.Table) -> ir.IntegerValue:
    """Numbers whose digits are a date, 20150427, or a date and a time, 20150427235959."""
    import ibis

    given = table["number"].coalesce(rounded(table["real"]))
    timed = given.between(DATES[0] * DAY_DIGITS, LAST_SECOND)
    date = timed.ifelse(given // DAY_DIGITS, given)
    clock = timed.ifelse(given % DAY_DIGITS, 0)
    known = date.between(*DATES)
    date = known.ifelse(date, ibis.null("int64"))
    parts = (date // 10_000, date // 100 % 100, date % 100)
    times = (clock // 10_000, clock // 100 % 100, clock % 100)
    return moment_of(*parts, *times, ibis.literal(0, "int64"), ibis.literal(0, "int64"))


def set_clock(engine: Engine, table: ir.Table, unit: str, column: str) -> Clock:
    """How the times of a table are to be read.

    Args:
        table: with the columns of `time_columns`.
        unit: that of the configuration.
        column: where they come from, for messages.

    Raises:
        UserError: for times in several units, with and without zones, for numbers that only
            count, and for days and months that cannot be told apart.
    """
    number = table["number"].cast("float64").coalesce(table["real"])
    bounds = [*SMALLEST.values(), float("inf")]
    counts = {
        name: ((number >= low) & (number < high)).sum() for name, low, high in _ranges(bounds)
    }
    counts |= {
        "order": number.between(0, SMALLEST["s"] - 1).sum(),
        "moment": table["moment"].count(),
        "numbers": number.count(),
        "zeros": (number == 0).sum(),
        "digits": _like_digits(number).sum(),
        "day_first": table["day_first"].count(),
        "month_first": table["month_first"].count(),
        "only_day_first": (table["day_first"].notnull() & table["month_first"].isnull()).sum(),
        "only_month_first": (table["month_first"].notnull() & table["day_first"].isnull()).sum(),
        "other": (table["day_first"] != table["month_first"]).sum(),
        "zoned": (table["zoned"]).sum(),
        "plain": (~table["zoned"]).sum(),
    }
    found = {
        name: int(count or 0)
        for name, count in engine.fetch(table.aggregate(**counts)).to_pylist()[0].items()
    }
    if found["digits"]:
        dates = table.aggregate(n=_of_digits(table).count())
        found["digits"] = int(engine.fetch(dates)["n"][0].as_py())
    text = _order_of_text(found, unit, column)
    if unit == "auto" and _in_digits(found):
        return Clock("digits")
    _refuse_mixtures(found, unit, column)
    units = {name: found[name] for name in UNITS if found[name]}
    if unit not in ("auto", *TEXTS):
        return Clock(unit, text=text)
    if not units and found["order"]:
        raise UserError(
            f"{column}: the times look like an order and not like dates: all numbers are below"
            f" {SMALLEST['s']:,}",
            "Say what they are: events.time_unit: order, or s for seconds since 1970, or digits for"
            " dates such as 20200427.",
        )
    chosen = next(iter(units), None)
    return Clock(chosen, SMALLEST[chosen] if chosen else 0, text)


def _in_digits(found: dict[str, int]) -> bool:
    """Whether numbers are dates such as 20200427, but for zeros, which stand for no time, and a few
    that are broken.
    """
    given = found["numbers"] - found["zeros"]
    return bool(
        found["digits"] and given - found["digits"] <= given * BROKEN_SHARE and not found["moment"]
    )


def _order_of_text(found: dict[str, int], unit: str, column: str) -> str | None:
    """Whether day or month comes first in texts with the year last; None where there are none. What
    is found is added to `found["moment"]`.
    """
    if not found["day_first"] and not found["month_first"]:
        return None
    if unit in TEXTS:
        order = unit
    elif found["day_first"] == found["month_first"] and found["other"]:
        raise UserError(
            f"{column}: dates such as 03/04/2020, and none tells whether the day or the month comes"
            " first",
            "Say it: events.time_unit: day_first, or month_first.",
        )
    elif found["only_day_first"] and found["only_month_first"]:
        raise UserError(
            f"{column}: in {found['only_day_first']:,} dates the day comes first, as in 27/04/2020,"
            f" and in {found['only_month_first']:,} the month, as in 04/27/2020",
            "Write all of them the same way. Where the few are errors, name the order of the others"
            " by events.time_unit, day_first or month_first: they are left out and counted.",
        )
    else:
        order = max(TEXTS, key=lambda name: found[name])
    found["moment"] += found[order]
    return order


def _ranges(bounds: list[float]) -> list[tuple[str, float, float]]:
    return list(zip(UNITS, bounds[:-1], bounds[1:], strict=True))


def _refuse_mixtures(found: dict[str, int], unit: str, column: str) -> None:
    if found["zoned"] and found["plain"]:
        raise UserError(
            f"{column}: {found['zoned']:,} times have a time zone and {found['plain']:,} have none",
            "Write all of them with a zone, or all of them in UTC without one.",
        )
    kinds = {f"{name} since 1970": found[name] for name in UNITS if found[name]}
    if unit not in ("auto", *TEXTS):
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
