"""Dates and times of the day in columns of text, as microseconds since 1970."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from sidtune.events.engine import Engine

if TYPE_CHECKING:
    import ibis.expr.types as ir

SECOND = 1_000_000
CLOCK = (
    r"(?:[T ]\s*([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r"(?:\s*([AaPp])\.?[Mm]\.?)?)?"
    r"\s*(Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?\s*$"
)
ISO = r"^\s*([0-9]{4})[-/.年]([0-9]{1,2})[-/.月]([0-9]{1,2})日?" + CLOCK
# The year last: whether day or month comes first, the values tell.
YEAR_LAST = r"^\s*([0-9]{1,2})[-/.]([0-9]{1,2})[-/.]([0-9]{4})" + CLOCK
# All that Unicode has for blanks, as Arrow trims them.
BLANK = r"[\t-\r\x1c-\x20\x85\p{Z}]"
# Names of what `with_parts` adds: the text without blanks around it; the same where it is a date
# with the year first or last; the groups of its pattern; and what these mean.
TEXT = "_text"
FORMS = {"_year_first": ISO, "_year_last": YEAR_LAST}
GROUPS, PARTS = "_groups", 8


def with_parts(engine: Engine, table: ir.Table, name: str) -> ir.Table:
    """A table with the parts of a column of text, which `of_text` reads; each is computed once for
    a row, since matching takes most of the time.
    """
    import ibis

    table = engine.once(table.mutate(**{TEXT: trimmed(table[name])}))
    text = table[TEXT]
    forms = {
        form: text.re_search(pattern).ifelse(text, ibis.null("string"))
        for form, pattern in FORMS.items()
    }
    table = engine.once(table.mutate(**forms))
    groups = {
        form + GROUPS: engine.groups(table[form], pattern, 9) for form, pattern in FORMS.items()
    }
    table = engine.once(table.mutate(**groups))
    parts = {
        _part(form, place): part
        for form in FORMS
        for place, part in enumerate(_parts(table[form + GROUPS]))
    }
    return engine.once(table.mutate(**parts))


def _part(form: str, place: int) -> str:
    return f"{form}_{place}"


def of_text(table: ir.Table) -> dict[str, ir.Value]:
    """The columns `moment`, `day_first`, `month_first` and `zoned` of `time_columns`.

    Args:
        table: of `with_parts`.
    """
    import ibis

    parts = [[table[_part(form, place)] for place in range(PARTS)] for form in FORMS]
    (year, month, day, *clock), (one, two, final, *last_clock) = parts
    matched = reduce(or_, (table[form].notnull() for form in FORMS))
    zoned = reduce(or_, ((table[form + GROUPS]["9"] != "").fill_null(False) for form in FORMS))
    return {
        "moment": moment_of(year, month, day, *clock),
        "day_first": moment_of(final, two, one, *last_clock),
        "month_first": moment_of(final, one, two, *last_clock),
        "zoned": matched.ifelse(zoned, ibis.null("boolean")),
    }


def _parts(groups: ir.StructValue) -> list[ir.Value]:
    """Three numbers of a date, then hours, minutes, seconds, microseconds, and seconds of the
    zone.
    """
    import ibis

    date = [groups[name].nullif("").try_cast("int64") for name in "123"]
    clock = [groups[name].nullif("").try_cast("int64").fill_null(0) for name in "456"]
    fraction = ibis.coalesce(
        (groups["7"] + "000000").substr(0, 6).try_cast("int64"), ibis.literal(0, "int64")
    )
    clock[0] = _of_day(clock[0], groups["8"].lower())
    return [*date, *clock, fraction, _offset(groups["9"].nullif(""))]


def _of_day(hour: ir.IntegerValue, half: ir.StringValue) -> ir.IntegerValue:
    """The hour of a day in 24 hours; null where a half of the day is named that has no such
    hour.
    """
    import ibis

    named = hour.between(1, 12).ifelse(hour % 12, ibis.null("int64"))
    afternoon = (half == "p").ifelse(12, 0)
    return (half == "").ifelse(hour, named + afternoon)


def moment_of(
    year: ir.Value,
    month: ir.Value,
    day: ir.Value,
    hour: ir.Value,
    minute: ir.Value,
    second: ir.Value,
    fraction: ir.Value,
    offset: ir.Value,
) -> ir.IntegerValue:
    """Microseconds since 1970; null where there is no such day or no such time of the day."""
    import ibis

    in_range = (
        month.between(1, 12)
        & (day >= 1)
        & (day <= _days_of(year, month))
        & hour.between(0, 23)
        & minute.between(0, 59)
        & second.between(0, 60)
    )
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - offset
    return in_range.ifelse(seconds * SECOND + fraction, ibis.null("int64"))


def trimmed(text: ir.StringValue) -> ir.StringValue:
    """A text without blanks around it.

    Not Ibis's `strip`: what that writes for Spark takes the letter v for a blank.
    """
    return text.re_replace(f"^{BLANK}+|{BLANK}+$", "")


def _offset(zone: ir.StringValue) -> ir.IntegerValue:
    """Seconds that a zone is ahead of UTC; 0 for none, Z, UTC and GMT."""
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
