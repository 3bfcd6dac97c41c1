"""Users and items as numbers, and the reasons for which single events are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidtune.config.events import EventsConfig
from sidtune.events.engine import Engine
from sidtune.events.moments import trimmed
from sidtune.events.summary import Steps
from sidtune.events.times import Clock, micros_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

# A whole number as a column of floating-point numbers writes it; `files/ids.py` has the same rule.
WHOLE_FLOAT = r"^-?(0|[1-9][0-9]{0,15})\.0+$"
LARGEST_WHOLE = 2**53
# Lists of candidates, and other files, name an item a line.
CONTROL = r"[\x00-\x1f]"
NO_ID = (
    "no {} id, or one with a line break or other control character, or a number that is not whole"
)
NO_TIME = "no time, or one that is not readable"


@dataclass(frozen=True)
class Coded:
    """Events with numbers for names.

    Args:
        events: `user`, `item`, `time`, and where there are such `position` and `weight`; none of
            them is null.
        users, items: `name` (the id), `code` (its number, in the order of the names).
    """

    events: ir.Table
    users: ir.Table
    items: ir.Table


def code_names(engine: Engine, given: ir.Table, role: str) -> tuple[ir.Table, ir.Table]:
    """Numbers for all users, or all items.

    Returns:
        a table of `given` (the id as it is written) and `code`, and one of `name` and `code`, a row
        for each code; `17.0` and `17` are one name.
    """
    import ibis

    # Kept, or what follows would be computed for each event before they become few.
    written = engine.keep(given.select(given=given[role]).distinct())
    text = trimmed(written["given"])
    whole = text.re_search(WHOLE_FLOAT)
    number = whole.ifelse(text.substr(0, text.find(".")), ibis.null("string"))
    exact = number.try_cast("int64").abs() <= LARGEST_WHOLE
    # A minus sign and a zero are one name with zero alone.
    name = (exact.fill_null(ibis.literal(False)).ifelse(number, text)).nullif("")
    sound = name.notnull() & ~text.re_search(CONTROL)
    named = engine.keep(written.mutate(name=name).filter(sound))
    names = named.select("name").distinct()
    coded = engine.keep(
        names.select("name", code=ibis.row_number().over(order_by="name").cast("int32"))
    )
    return named.join(coded, "name").select("given", "code"), coded


def code_events(
    engine: Engine, given: ir.Table, config: EventsConfig, timing: Timing, judged: ir.Table | None
) -> tuple[Coded, Steps]:
    """Replace names by numbers, and drop the events that lack something or that the configuration
    leaves out.

    Args:
        judged: catalogue items, `name` and `verdict` (a text, or null for a sound item); None where
            there is no catalogue.

    Raises:
        UserError: where no event is left; it names the step.
    """
    table, user_names, item_names = with_codes(engine, given, judged)
    reasons = _reasons(table, config, timing, judged is not None)
    events = engine.keep(_with_reason(table, config, timing, reasons, judged is not None))
    steps = _counted(engine, events, reasons, given)
    events = events.filter(events["reason"].isnull()).drop("reason")
    return Coded(events, user_names, item_names), steps


def with_codes(
    engine: Engine, given: ir.Table, judged: ir.Table | None
) -> tuple[ir.Table, ir.Table, ir.Table]:
    """Events with `user_code` and `item_code`, null for what is no id; users, and items, as `Coded`
    has them.

    Args:
        judged: as in `code_events`; its items then come with `known`, null for those that the
            catalogue lacks, and `verdict`.
    """
    users, user_names = code_names(engine, given, "user")
    items, item_names = code_names(engine, given, "item")
    if judged is not None:
        items = _judged(items, item_names, judged)
    table = (
        given.left_join(users, given["user"] == users["given"])
        .drop("given")
        .rename(user_code="code")
    )
    table = (
        table.left_join(items, table["item"] == items["given"])
        .drop("given")
        .rename(item_code="code")
    )
    return table, user_names, item_names


def _judged(items: ir.Table, names: ir.Table, judged: ir.Table) -> ir.Table:
    verdicts = names.left_join(judged.mutate(known=True), "name").select("code", "verdict", "known")
    return items.join(verdicts, "code").select("given", "code", "verdict", "known")


Reason = tuple[str, str, "ir.BooleanValue"]


@dataclass(frozen=True)
class Timing:
    """What the events of a user are ordered by.

    Args:
        timed: whether there is a column of times; otherwise positions are the times.
        positioned: whether there is a column of positions.
    """

    clock: Clock
    timed: bool
    positioned: bool

    @property
    def dated(self) -> bool:
        """Whether times are dates."""
        return self.timed and self.clock.dated

    def time(self, table: ir.Table) -> ir.IntegerValue:
        """The times of events: microseconds, or an order."""
        return self.clock.micros(table) if self.timed else table["position"]


def _reasons(table: ir.Table, config: EventsConfig, timing: Timing, judged: bool) -> list[Reason]:
    """Why an event is left out: a step, what is true of the event, and the condition; the first
    that holds counts.
    """
    time = timing.time(table)
    found: list[Reason] = [
        ("input", NO_ID.format("user"), table["user_code"].isnull()),
        ("input", NO_ID.format("item"), table["item_code"].isnull()),
    ]
    if timing.timed:
        found.append(("input", NO_TIME, ~timing.clock.given(table)))
        absurd = "time before 1970 or after 2099, or not in the unit of the others"
        found.append(("input", absurd, time.isnull()))
    else:
        found.append(("input", "no position", time.isnull()))
    if config.start:
        found.append(
            ("events.start", f"before {config.start:%Y-%m-%d}", time < micros_of(config.start))
        )
    if config.end:
        found.append(
            ("events.end", f"at or after {config.end:%Y-%m-%d}", time >= micros_of(config.end))
        )
    if config.types:
        known = trimmed(table["type"]).isin(list(config.types)).fill_null(False)
        found.append(("events.types", f"type is not one of {', '.join(config.types)}", ~known))
    if config.min_rating is not None:
        text = "rating that is no number; decimals are written with a point"
        found.append(("input", text, table["rating"].isnan().fill_null(False)))
        enough = (table["rating"] >= config.min_rating).fill_null(False)
        found.append(("events.min_rating", f"rating below {config.min_rating:g}, or none", ~enough))
    if judged:
        found.append(("catalogue", "item is not in the catalogue", table["known"].isnull()))
    return found


def _with_reason(
    table: ir.Table, config: EventsConfig, timing: Timing, reasons: list[Reason], judged: bool
) -> ir.Table:
    import ibis

    reason = ibis.cases(*((holds, str(number)) for number, (_, _, holds) in enumerate(reasons)))
    if judged:
        reason = reason.coalesce(table["verdict"])
    others: dict[str, ir.Value] = {}
    if timing.timed and timing.positioned:
        others["position"] = table["position"].fill_null(-1)
    if config.weights:
        kind = trimmed(table["type"])
        others["weight"] = ibis.cases(
            *((kind == name, float(value)) for name, value in config.weights.items())
        )
    time = timing.time(table)
    return table.select(
        user=table["user_code"], item=table["item_code"], time=time, **others, reason=reason
    )


def _counted(engine: Engine, events: ir.Table, reasons: list[Reason], given: ir.Table) -> Steps:
    found = engine.fetch(
        events.group_by("reason").aggregate(n=lambda table: table.count())
    ).to_pylist()
    counts: dict[str | None, int] = {row["reason"]: row["n"] for row in found}
    steps = Steps(sum(counts.values()))
    for number, (name, why, _) in enumerate(reasons):
        dropped = counts.pop(str(number), 0)
        example = _unread(engine, given) if why == NO_TIME and dropped else ""
        steps.add(name, why + example, dropped)
    counts.pop(None, None)
    for verdict in sorted(map(str, counts)):
        name, _, why = verdict.partition(": ")
        steps.add(name, why, counts[verdict])
    return steps


def _unread(engine: Engine, given: ir.Table) -> str:
    """An example of a time that is not readable, if some text is none."""
    text = engine.fetch(given.aggregate(text=given["unread"].min()))["text"][0].as_py()
    return f", such as {text!r:.60}" if text else ""
