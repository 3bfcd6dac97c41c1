"""Which of the files found a configuration uses, and the settings that a user decides about."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Literal

from sidtune.base.errors import UserError
from sidtune.data.item_files import plain_name
from sidtune.events.columns import find_column, like_named
from sidtune.events.files import matching_files
from sidtune.pipeline.sizes import Size, size_for
from sidtune.setup.look import Role, Table, look_at

READABLE = (
    "Give a table of events (who, what, when), rows or whole histories: docs/own-data.md and"
    " docs/configuration.md describe them. A table whose columns have other names is named by"
    " --events FILE --user COLUMN --item COLUMN --time COLUMN."
)
# The share of events that are training targets, in shops that were looked at.
TARGETS = 0.9
# Fewer events are not filtered: little would be left.
FILTERED_FROM = 10_000
K_CORE = 5
SHOWN = 12
Split = Literal["leave_one_out", "global_time"]
WAYS: tuple[tuple[Role, ...], ...] = (("train", "valid", "test"), ("interactions",), ("events",))


@dataclass(frozen=True)
class Chosen:
    """What a configuration is written about.

    Args:
        tables: by what each is used as: `events` and `catalogue`, or keys of `data`.
        columns: role → column of the events, where it has no usual name.
        k_core: the fewest events of users and items; 0 keeps all.
        left: the events that `k_core` leaves; None where they were not counted.
        users: those of them; None where they were not counted.
        split: of the events.
        base: the pretrained model to fine-tune; None for a small one from scratch.
        others: files of the same roles that are not used, as where a folder has several shops.
    """

    tables: Mapping[Role, Table]
    columns: Mapping[str, str] = field(default_factory=dict)
    k_core: int = 0
    left: int | None = None
    users: int | None = None
    split: Split = "leave_one_out"
    base: str | None = None
    others: tuple[Table, ...] = ()

    @property
    def targets(self) -> int:
        """About how many items training predicts."""
        if "events" in self:
            return round((self.left or self.tables["events"].rows) * TARGETS)
        return self.tables["train" if "train" in self else "interactions"].rows

    @property
    def size(self) -> Size:
        """The settings of a model from scratch; of users who were not counted, as if each had few
        events.
        """
        return size_for(self.targets, self.users or self.targets)

    def __contains__(self, role: Role) -> bool:
        return role in self.tables


def choose(tables: Sequence[Table]) -> Chosen:
    """The files to train on: rows before whole histories before events, the largest of its role,
    and what has names like it.

    Raises:
        UserError: says what was found where nothing can be trained on.
    """
    roles = _of_roles(tables)
    if "train" in roles and "valid" not in roles:
        raise UserError(
            f"{roles['train'].path}: training rows, and no file of validation rows beside it",
            "Put a valid.csv beside it; docs/configuration.md says what rows are.",
        )
    way = _way(roles)
    if way is None:
        raise UserError(f"nothing to train on: {listed(tables)}", READABLE)
    if way == ("interactions",) and _need_preparing(roles):
        return _prepared(roles)
    texts: tuple[Role, ...] = ("catalogue",) if way == ("events",) else ("items", "index")
    kept = {role: roles[role] for role in (*way, *texts) if role in roles}
    if way == ("events",) and "catalogue" not in kept and "items" in roles:
        kept["catalogue"] = roles["items"]
    filtered = way == ("events",) and kept["events"].rows >= FILTERED_FROM
    known = {table.role for table in kept.values()}
    others = [table for table in tables if table.role in known and table not in kept.values()]
    return Chosen(kept, k_core=K_CORE if filtered else 0, others=tuple(others))


def _way(roles: Container[Role]) -> tuple[Role, ...] | None:
    return next((way for way in WAYS if way[0] in roles), None)


def _of_roles(tables: Sequence[Table]) -> dict[Role, Table]:
    """One file for each role: the largest of what is trained on, and of the others those whose
    names begin like it: a folder may hold several shops.
    """
    ordered = sorted(tables, key=lambda table: table.rows)
    largest = {table.role: table for table in ordered if table.role}
    way = _way(largest)
    if way is None:
        return largest
    words = _words(largest[way[0]])

    def likeness(table: Table) -> tuple[int, int]:
        pairs = zip(words, _words(table), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), table.rows

    rest = {table.role: table for table in sorted(ordered, key=likeness) if table.role}
    return {**rest, way[0]: largest[way[0]]}


def _words(table: Table) -> list[str]:
    return [word for word in re.split(r"[\W_]+", table.path.name.lower()) if word]


def _need_preparing(roles: Container[Role]) -> bool:
    """Whether whole histories have a catalogue in another layout than that of `data.items`, of
    which `sidtune prepare` makes one.
    """
    return "items" not in roles and "catalogue" in roles


def _prepared(roles: Mapping[Role, Table]) -> Chosen:
    """Whole histories as events, with the catalogue and the SIDs beside them."""
    histories = roles["interactions"]
    events = replace(
        histories, role="events", format="sequences", rows=round(histories.rows / TARGETS)
    )
    beside: tuple[Role, ...] = ("catalogue", "index")
    return Chosen({"events": events, **{role: roles[role] for role in beside if role in roles}})


def with_events(path: Path, tables: Sequence[Table]) -> Chosen:
    """The events that the user names, a file or a pattern of files, and the catalogue among the
    files found.
    """
    parts = [look_at(file) for file in matching_files(path, "--events")]
    table = replace(parts[0], path=path, rows=sum(part.rows for part in parts))
    if not table.names and table.role != "events":
        raise UserError(f"{path}: {table.note or 'not a table of events'}", READABLE)
    others = sorted(tables, key=lambda one: _same_files(table, one))
    catalogues = (one for one in others if one.role in ("catalogue", "items"))
    catalogue = next((one for one in catalogues if not _names_other_things(table, one)), None)
    kept: dict[Role, Table] = {"events": replace(table, role="events")}
    if catalogue:
        kept["catalogue"] = catalogue
    return Chosen(kept, k_core=K_CORE if table.rows >= FILTERED_FROM else 0)


def _names_other_things(events: Table, table: Table) -> bool:
    """Whether a table is the one of events, with a name or title that need not be that of the item:
    it may be that of the order, the user or the review.
    """
    title = find_column("title", None, table.names, "", "catalogue")
    return plain_name(title or "") in ("name", "title", "") and _same_files(events, table)


def _same_files(table: Table, other: Table) -> bool:
    """Whether two tables have a file in common."""
    files, others = (
        {file.resolve() for file in matching_files(one.path, "--events")} for one in (table, other)
    )
    return bool(files & others)


def with_catalogue(chosen: Chosen, tables: Sequence[Table]) -> Chosen:
    """The same with the catalogue that the events' column of items makes known: a table that has
    this column, which may have no usual name, and titles.
    """
    found = [
        table
        for table in _with_item_column(chosen, tables)
        if find_column("title", None, table.names, "", "catalogue")
        and not _names_other_things(chosen.tables["events"], table)
    ]
    if not found:
        return chosen
    events = chosen.tables["events"]
    largest = max(found, key=lambda table: (not _same_files(events, table), table.rows))
    return replace(
        chosen, tables={**chosen.tables, "catalogue": replace(largest, role="catalogue")}
    )


def untitled(chosen: Chosen, tables: Sequence[Table]) -> Table | None:
    """The largest table beside the events that could be the catalogue if its titles were known."""
    found = [
        table
        for table in _with_item_column(chosen, tables)
        if not find_column("title", None, table.names, "", "catalogue")
        and not _same_files(chosen.tables["events"], table)
    ]
    return max(found, key=lambda table: table.rows, default=None)


def _with_item_column(chosen: Chosen, tables: Sequence[Table]) -> list[Table]:
    """Tables of no known use that have the events' column of items and none of users; none where
    the catalogue is known.
    """
    events = chosen.tables.get("events")
    if events is None or events.format or "catalogue" in chosen:
        return []
    item = find_column("item", chosen.columns.get("item"), events.names, "", "events")
    return [
        table
        for table in tables
        if table.role is None
        and item
        and like_named(item, table.names)
        and not find_column("user", None, table.names, "", "catalogue")
    ]


def missing_columns(chosen: Chosen) -> list[str]:
    """Roles of the events that no column is known to have."""
    events = chosen.tables.get("events")
    if events is None or events.format:
        return []

    def known(role: str) -> bool:
        return bool(
            find_column(role, chosen.columns.get(role), events.names, str(events.path), "events")
        )

    missing = [role for role in ("user", "item") if not known(role)]
    return missing + ([] if known("time") or known("position") else ["time"])


def listed(tables: Sequence[Table]) -> str:
    """What the files are, in a line."""
    told = [
        f"{table.path.name} ({table.role or table.note or ', '.join(table.names)[:60]})"
        for table in sorted(tables, key=lambda table: not (table.role or table.names))
    ]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return "; ".join(told[:SHOWN]) + more
