"""The steps that look at several events at once: repeats, the k-core, and the latest events of a
user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidtune.config.events import EventsConfig, KCore
from sidtune.events.engine import Engine
from sidtune.events.moments import SECOND
from sidtune.events.summary import Steps

if TYPE_CHECKING:
    import ibis.expr.types as ir

# One order for all events: equal times by position, then by item, whose codes are in the order of
# their ids.
ORDER = ("time", "position", "item", "weight")


def order_of(events: ir.Table) -> list[str]:
    """The columns that the events of a user are ordered by."""
    return [name for name in ORDER if name in events.columns]


def choose(engine: Engine, events: ir.Table, config: EventsConfig, steps: Steps) -> ir.Table:
    """Apply the configured steps, one after the other.

    Args:
        events: as those of `Coded`.
        steps: is told what each dropped.

    Raises:
        UserError: where a step leaves no event.
    """
    if config.repeat_gap is not None:
        why = f"the user had the same item at most {config.repeat_gap:g} seconds before"
        events = engine.keep(without_repeats(events, config.repeat_gap))
        _count(engine, events, steps, "events.repeat_gap", why)
    if config.cores:
        why = (
            f"user of fewer than {config.cores.user} events, or item of fewer than"
            f" {config.cores.item}"
        )
        events = k_core(engine, events, config.cores)
        _count(engine, events, steps, "events.k_core", why)
    if config.latest:
        why = f"more than {config.latest:,} later events of the same user"
        events = engine.keep(latest(events, config.latest))
        _count(engine, events, steps, "events.latest", why)
    return events


def without_repeats(events: ir.Table, gap: float) -> ir.Table:
    """Without the events whose user had the same item at most `gap` seconds before, whether that
    one stays or not.
    """
    import ibis

    window = ibis.window(
        group_by=["user", "item"], order_by=[name for name in order_of(events) if name != "item"]
    )
    before = events["time"].lag().over(window)
    marked = events.mutate(before=before)
    apart = marked["before"].isnull() | (marked["time"] - marked["before"] > int(gap * SECOND))
    return marked.filter(apart).drop("before")


def k_core(engine: Engine, events: ir.Table, cores: KCore) -> ir.Table:
    """The largest set of events in which every user and every item has the fewest events that it
    needs, or more.
    """
    before = None
    while True:
        users, items = _counted(events, "user"), _counted(events, "item")
        rare = [_number_of_rare(users, cores.user), _number_of_rare(items, cores.item)]
        found = engine.fetch(rare[0].union(rare[1]))["n"].to_pylist()
        if not any(found):
            return events
        frequent = users.filter(users["n"] >= cores.user), items.filter(items["n"] >= cores.item)
        kept = engine.keep(events.semi_join(frequent[0], "user").semi_join(frequent[1], "item"))
        if before is not None:
            engine.forget(before)
        before = events = kept


def latest(events: ir.Table, most: int) -> ir.Table:
    """The latest events of each user, `most` at most."""
    import ibis

    window = ibis.window(group_by="user", order_by=[ibis.desc(name) for name in order_of(events)])
    numbered = events.mutate(number=ibis.row_number().over(window))
    return numbered.filter(numbered["number"] < most).drop("number")


def number_of(engine: Engine, events: ir.Table) -> int:
    """How many events there are."""
    return int(engine.fetch(events.aggregate(n=events.count()))["n"][0].as_py())


def number_of_users(engine: Engine, events: ir.Table) -> int:
    """How many users have events."""
    return int(engine.fetch(events.aggregate(n=events["user"].nunique()))["n"][0].as_py())


def _counted(events: ir.Table, name: str) -> ir.Table:
    return events.group_by(name).aggregate(n=lambda table: table.count())


def _number_of_rare(counted: ir.Table, least: int) -> ir.Table:
    return counted.aggregate(n=(counted["n"] < least).sum())


def _count(engine: Engine, events: ir.Table, steps: Steps, name: str, why: str) -> None:
    steps.add(name, why, steps.left - number_of(engine, events))
