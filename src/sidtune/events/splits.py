"""Which split a target belongs to, by its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.config.events import SHARES, CutDates, EventsConfig
from sidtune.events.engine import Engine
from sidtune.events.moments import SECOND
from sidtune.events.steps import number_of
from sidtune.events.times import micros_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

SPLITS = ("train", "valid", "test")
# So many groups of times are looked at, and then the times of the group that a cut is in.
BUCKETS = 4_096


@dataclass(frozen=True)
class Cut:
    """Where one split ends and the next begins.

    Args:
        time: of the first targets that may belong to the next split.
        before: how many targets of exactly this time still belong to the earlier one, in the order
            of users.
    """

    time: int
    before: int


class Cuts:
    """Puts targets into splits, piece by piece; the pieces come in the order of users.

    Args:
        cuts: where validation begins, and where test does.
    """

    def __init__(self, cuts: tuple[Cut, Cut]) -> None:
        self.cuts = cuts
        self.seen = [0, 0]

    def split(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """0 for train, 1 for valid, 2 for test, `(n,)`, of targets with these times."""
        found = np.zeros(len(times), np.int64)
        for place, cut in enumerate(self.cuts):
            ties = times == cut.time
            number = self.seen[place] + np.cumsum(ties)
            self.seen[place] += int(ties.sum())
            found += (times > cut.time) | (ties & (number > cut.before))
        return found


def find_cuts(engine: Engine, events: ir.Table, config: EventsConfig) -> tuple[Cut, Cut]:
    """Where a split by time divides the targets; every event of a user but the first is a target.

    Raises:
        UserError: where there is no target, or too few for every split.
    """
    if isinstance(config.split, CutDates):
        return Cut(micros_of(config.split.valid), 0), Cut(micros_of(config.split.test), 0)
    count = number_of(engine, events) - number_of(engine, _firsts(events))
    train, valid, test = config.shares or SHARES
    whole = train + valid + test
    first, second = count * train // whole, count * (train + valid) // whole
    if not 0 < first < second < count:
        raise UserError(
            f"events.split: {count:,} events have another of the same user before them: too few for"
            " three splits",
            "Use split: leave_one_out, or more events.",
        )
    times = TargetTimes(engine, events)
    return times.cut(first), times.cut(second)


class TargetTimes:
    """How many targets there are at each time, looked at in two steps: never at all times at once.

    Args:
        events: as those of `Coded`; every event of a user but the first is a target.
    """

    def __init__(self, engine: Engine, events: ir.Table) -> None:
        self.engine, self.events = engine, events
        self.first, last = _bounds(engine, events)
        self.width = (last - self.first) // BUCKETS + 1
        self.buckets, self.counts = self._targets(lambda time: (time - self.first) // self.width)

    def cut(self, place: int) -> Cut:
        """The cut in front of the target that has `place` others before it."""
        at, before = _containing(self.counts, place)
        start = self.first + int(self.buckets[at]) * self.width
        times, counts = self._targets(lambda time: time, (start, start + self.width - 1))
        here, earlier = _containing(counts, place - before)
        return Cut(int(times[here]), place - before - earlier)

    def _targets(
        self, group: Callable[[Any], Any], within: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Groups of the times within bounds, ascending, and how many targets each has."""
        found: dict[int, int] = {}
        for every, sign in ((self.events, 1), (_firsts(self.events), -1)):
            table = every.filter(every["time"].between(*within)) if within else every
            grouped = table.group_by(group=group(table["time"]).cast("int64")).aggregate(
                n=lambda one: one.count()
            )
            for row in self.engine.fetch(grouped).to_pylist():
                found[row["group"]] = found.get(row["group"], 0) + sign * row["n"]
        groups = np.array(sorted(found), np.int64)
        return groups, np.array([found[at] for at in groups.tolist()], np.int64)


def _containing(counts: NDArray[np.int64], place: int) -> tuple[int, int]:
    """The group that the target with `place` others before it is in, and how many targets the
    groups before have.
    """
    through = np.cumsum(counts)
    at = int(np.searchsorted(through, place, side="right"))
    return at, int(through[at] - counts[at])


def time_range(engine: Engine, events: ir.Table) -> tuple[datetime, datetime]:
    """When the first and the last event were."""
    first, last = (datetime.fromtimestamp(at / SECOND, UTC) for at in _bounds(engine, events))
    return first, last


def _bounds(engine: Engine, events: ir.Table) -> tuple[int, int]:
    bounds = events.aggregate(first=events["time"].min(), last=events["time"].max())
    found = engine.fetch(bounds).to_pylist()[0]
    return int(found["first"]), int(found["last"])


def _firsts(events: ir.Table) -> ir.Table:
    """Each user's first time."""
    return events.group_by("user").aggregate(time=lambda table: table["time"].min())
