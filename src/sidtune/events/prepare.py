"""From events and a catalogue to the rows, the items and the summary of one folder."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sidtune.base.errors import UserError
from sidtune.base.hashing import digest
from sidtune.base.storage import flush, refusing_failed_writes, write_text
from sidtune.base.terminal import starting, warn
from sidtune.config.events import HISTORY_OF_ROWS, EventsConfig, PrepareConfig, SparkEngine
from sidtune.events.catalogue import ID, Items, item_files, read_items, write_items, write_verdicts
from sidtune.events.coding import Timing, code_events
from sidtune.events.engine import Engine, opened_engine, require
from sidtune.events.files import digests
from sidtune.events.rows import Names, Written, write_rows, write_sequences
from sidtune.events.source import Given, Source, event_files, find_source, given_events, place_of
from sidtune.events.splits import Cuts, find_cuts, time_range
from sidtune.events.steps import choose, number_of_users, order_of
from sidtune.events.summary import Steps
from sidtune.events.times import Clock, rounded, set_clock
from sidtune.files.text import read_json_object

# Raised whenever the same inputs make other files.
VERSION = 6
PREPARED, SUMMARY, CATALOGUE = "prepared", "summary.json", "catalogue.parquet"
PARTIAL = ".partial-"
# A user with more events is more likely a program or a shared account.
MANY_EVENTS = 10_000
# Where a greater share of events have the time of another of their user, their order says little.
MANY_TIES = 0.5
# Without these no model is trained.
NEEDED_ROWS = {"train": "training", "valid": "validation"}
# The folders in which this process prepares just now.
_ASIDE: set[Path] = set()


@dataclass(frozen=True)
class Prepared:
    """What `prepare` left.

    Args:
        folder: `output_dir/prepared/<fingerprint>`.
        summary: the content of its `summary.json`.
        again: whether it was there already.
    """

    folder: Path
    summary: dict[str, Any]
    again: bool

    @property
    def catalogue(self) -> Path:
        """The items that are left."""
        return self.folder / CATALOGUE

    @property
    def rows(self) -> dict[str, Path]:
        """The files of rows, by the key of `data` that reads them."""
        files = {name: self.folder / f"{name}.parquet" for name in self.summary["rows"]}
        return {name: file for name, file in files.items() if file.is_file()}


def prepare(config: PrepareConfig) -> Prepared:
    """Do what `events` and `catalogue` say, unless it is done.

    Raises:
        UserError: for anything in the inputs that nothing can be made of; nothing is left behind
            then.
    """
    spark = isinstance(config.events.engine, SparkEngine)
    require("spark" if spark else "prepare")
    home = config.output_dir / PREPARED
    with _aside(home) as folder:
        source = find_source(config.events, folder)
        settings = settings_digest(config)
        name = fingerprint(settings, source.digests)
        done = home / name
        if (done / SUMMARY).is_file():
            # The latest one counts, where a table of a database had other rows in between.
            os.utime(done)
            return _read(done)
        starting("Preparing the events: about ten seconds a million")
        made = folder / name
        made.mkdir()
        summary = _made(config, source, made, folder)
        made_of = {"settings": settings, "table": _table_digest(config.events)}
        summary = {"version": VERSION, "fingerprint": name, **made_of, **summary}
        write_text(made / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        _publish(made, done)
    return Prepared(done, summary, False)


def find_prepared(config: PrepareConfig) -> Prepared | None:
    """What `prepare` left for these settings and files, if it did.

    A table of a database is not read again: what `prepare` last made of it counts.

    Raises:
        UserError: for files that are missing.
    """
    home, settings = config.output_dir / PREPARED, settings_digest(config)
    if config.events.files:
        files = list(digests(event_files(config.events)))
        found = [home / fingerprint(settings, files) / SUMMARY]
    else:
        found = sorted(home.glob(f"*/{SUMMARY}"), key=lambda file: -file.parent.stat().st_mtime_ns)
    made = (_read(summary.parent) for summary in found if summary.is_file())
    wanted = {"settings": settings, "table": _table_digest(config.events)}
    return next((one for one in made if wanted.items() <= one.summary.items()), None)


def _table_digest(config: EventsConfig) -> str | None:
    """Names a table without its database's address, which may hold a password."""
    return digest([config.database, config.table]) if config.database else None


def _read(folder: Path) -> Prepared:
    return Prepared(folder, read_json_object(folder / SUMMARY), True)


def settings_digest(config: PrepareConfig) -> str:
    """A digest of all that decides about the result but the events; where files lie and which
    engine runs does not matter.
    """
    events = config.events.model_dump(mode="json", exclude={"files", "database", "table", "engine"})
    catalogue: dict[str, Any] | None = None
    items: list[str] = []
    if config.catalogue:
        catalogue = config.catalogue.model_dump(mode="json", exclude={"file"})
        # In the order of their names, in which the first row of an id counts.
        items = list(digests(item_files(config.catalogue)))
    return digest([VERSION, events, catalogue, items])


def fingerprint(settings: str, sources: list[str]) -> str:
    """A name for what these settings make of these events."""
    return digest([settings, sorted(sources)])[:16]


def _made(config: PrepareConfig, source: Source, made: Path, folder: Path) -> dict[str, Any]:
    """Write all files but the summary, which is returned."""
    with (
        refusing_failed_writes(made),
        opened_engine(config.events.engine, folder, place_of(config.events)) as engine,
    ):
        given = given_events(config.events, source, engine, folder)
        items = read_items(config.catalogue, given.columns["item"]) if config.catalogue else None
        # Faults of the catalogue are told before the events are parsed.
        given = given.kept(engine)
        timing = _timing(config.events, given, engine)
        judged = engine.read([write_verdicts(items, folder)]) if items else None
        coded, steps = code_events(engine, given.table, config.events, timing, judged)
        events = choose(engine, coded.events, config.events, steps)
        names = Names(_names(engine, coded.users), _names(engine, coded.items), timing.dated)
        written = _write(config.events, engine, events, names, made)
        touched = _touched(engine, events)
        _write_catalogue(config, items, names, touched, made)
        warnings = _warnings(steps, items, written, names)
        result = {
            "events": steps.left,
            "users": number_of_users(engine, events),
            "items": len(touched),
        }
    for warning in warnings:
        warn(warning)
    if "interactions" in written.rows:
        result["users_with_held_out_events"] = written.split
    return {
        "columns": (
            given.columns
            | {f"catalogue.{role}": name for role, name in (items.columns if items else {}).items()}
        ),
        "times": timing.clock.unit or "dates" if timing.timed else "order",
        "read": steps.read,
        "steps": steps.as_json(),
        "result": (
            result
            | {
                "events_of_longest_user": written.longest,
                "events_ordered_by_item": written.ties,
            }
        ),
        "rows": written.rows,
        "held_out_targets_not_in_training": written.cold,
        "catalogue": _catalogue_counts(items, touched, names),
        "warnings": warnings,
    }


def _timing(config: EventsConfig, given: Given, engine: Engine) -> Timing:
    """How times are read; refuses what needs dates where there are none."""
    column = given.columns.get("time")
    where = f"{place_of(config)}, column {column}"
    clock = set_clock(engine, given.table, config.time_unit, where) if column else Clock("order")
    timing = Timing(clock, column is not None, "position" in given.columns)
    _refuse_fractions(config, given, engine, timing)
    if not timing.dated:
        for name in ("start", "end", "repeat_gap"):
            if getattr(config, name) is not None:
                raise UserError(
                    f"events.{name} needs dates, and the events only have an order", "Leave it out."
                )
        if config.split != "leave_one_out":
            raise UserError(
                "events.split: a split by dates needs dates, and the events only have an order",
                "Use split: leave_one_out, or name the column of dates by events.time.",
            )
    return timing


def _refuse_fractions(config: EventsConfig, given: Given, engine: Engine, timing: Timing) -> None:
    """Refuse an order that rounding would change."""
    numbers = {"position": "position_real"} if timing.positioned else {}
    if timing.timed and not timing.dated:
        numbers["time"] = "real"
    if not numbers:
        return
    table = given.table
    counts = {role: (table[name] != rounded(table[name])).sum() for role, name in numbers.items()}
    for role, count in engine.fetch(table.aggregate(**counts)).to_pylist()[0].items():
        if count:
            raise UserError(
                f"{place_of(config)}, column {given.columns[role]}: {int(count):,} numbers of the"
                " order have a fraction",
                "Number each user's events by whole numbers: 1, 2, 3.",
            )


def _names(engine: Engine, coded: Any) -> pa.Array:
    """All names in the order of their codes."""
    pieces = [
        piece["name"].cast(pa.large_string()) for piece in engine.stream(coded.order_by("code"))
    ]
    return pa.chunked_array(pieces, pa.large_string()).combine_chunks()


def _write(config: EventsConfig, engine: Engine, events: Any, names: Names, made: Path) -> Written:
    ordered = engine.stream(events.order_by(["user", *order_of(events)]))
    if config.split == "leave_one_out":
        return write_sequences(ordered, names, made)
    cuts = Cuts(find_cuts(engine, events, config))
    written = write_rows(ordered, names, cuts, config.history or HISTORY_OF_ROWS, made)
    for name, what in NEEDED_ROWS.items():
        if not written.rows[name]:
            first, last = time_range(engine, events)
            raise UserError(
                f"events.split left no {what} row: the events are from {first:%Y-%m-%d} to"
                f" {last:%Y-%m-%d}",
                "Choose other dates, or split: global_time.",
            )
    return written


def _touched(engine: Engine, events: Any) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The items that are left, ascending."""
    found = engine.fetch(events.select("item").distinct())["item"].to_numpy()
    return np.sort(found)


def _write_catalogue(
    config: PrepareConfig, items: Items | None, names: Names, touched: Any, made: Path
) -> None:
    """Items that are left, with their texts where there is a catalogue."""
    ids = names.items.take(pa.array(touched))
    if items is None or config.catalogue is None:
        pyarrow.parquet.write_table(pa.table({ID: ids}), made / CATALOGUE, compression="zstd")
        return
    kept = pc.is_in(items.table[ID], value_set=ids).to_numpy()
    if config.catalogue.keep_untouched:
        kept = items.verdicts.is_null().to_numpy(zero_copy_only=False)
    write_items(items, kept, made / CATALOGUE)


def _catalogue_counts(items: Items | None, touched: Any, names: Names) -> dict[str, int]:
    if items is None:
        return {}
    sound = items.table.num_rows - (len(items.verdicts) - items.verdicts.null_count)
    return items.counts | {"items": items.table.num_rows, "untouched": sound - len(touched)}


def _warnings(steps: Steps, items: Items | None, written: Written, names: Names) -> list[str]:
    """What a user should look at, though it stops nothing."""
    found = [
        f"{step.dropped:,} of {steps.read:,} events left out: {step.why}"
        for step in steps.taken
        if step.dropped and (step.name == "input" or step.name.startswith("catalogue"))
    ]
    if items and items.counts["repeated_ids"]:
        other = items.counts["repeated_ids_with_other_texts"]
        repeated = items.counts["repeated_ids"]
        found.append(
            f"{repeated:,} rows of the catalogue repeat an id, {other:,} of them with other texts:"
            " the first counts"
        )
    if items and items.counts["without_id"]:
        found.append(
            f"{items.counts['without_id']:,} rows of the catalogue have no id that can be used"
        )
    if written.longest > MANY_EVENTS:
        user = names.users[written.longest_user].as_py()[:60]
        found.append(
            f"user {user} has {written.longest:,} events; is it a person? events.latest keeps the"
            " latest ones"
        )
    if written.rows.get("test") == 0:
        found.append("events.split left no test row: the last event is before that date")
    if written.ties > steps.left * MANY_TIES:
        found.append(
            f"{written.ties:,} of {steps.left:,} events have the time of another event of their"
            " user and are ordered by item id there, so what came next is partly arbitrary; with a"
            " column that orders them, events.position, it is not"
        )
    return found


@contextmanager
def _aside(home: Path) -> Iterator[Path]:
    """A folder beside the finished ones, which is gone in the end; those of processes that died are
    removed too.
    """
    with refusing_failed_writes(home):
        home.mkdir(parents=True, exist_ok=True)
        mark = f"{PARTIAL}{platform.node()}-"
        for left in home.glob(f"{mark}*"):
            if left not in _ASIDE and not _in_use(left.name.removeprefix(mark)):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{mark}{os.getpid()}-", dir=home))
    _ASIDE.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _ASIDE.discard(folder)


def _in_use(name: str) -> bool:
    """Whether the process that a folder is named after may still run. One that has this process's
    number, as in a container that was started again, does not.
    """
    number = name.split("-")[0]
    if not number.isdecimal():
        return True
    if int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True


def _publish(made: Path, done: Path) -> None:
    """Give a finished folder its name; where another process was faster, its files are the same."""
    with refusing_failed_writes(done):
        for file in made.iterdir():
            flush(file)
        flush(made)
        if done.exists() and not (done / SUMMARY).exists():
            shutil.rmtree(done)
        try:
            os.rename(made, done)
        except OSError:
            if not (done / SUMMARY).is_file():
                raise
        flush(done.parent)
