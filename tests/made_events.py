"""Made-up events in files, how they are prepared in a test, and a slow and obvious reference for
it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from sidtune.config.events import PrepareConfig
from sidtune.events.prepare import Prepared, prepare

# User, item, seconds since 1970, rating.
Event = tuple[str, str, int, float]
# Of these, `START + 1` is one second later.
START = 1_500_000_000


def write_events(folder: Path, events: Sequence[Event], name: str = "events.parquet") -> Path:
    """Events as Parquet with the usual names."""
    columns = zip(*events, strict=True) if events else [[], [], [], []]
    users, items, times, ratings = (list(column) for column in columns)
    table = pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "item_id": pa.array(items, pa.string()),
            "timestamp": pa.array(times, pa.int64()),
            "rating": pa.array(ratings, pa.float64()),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, folder / name)
    return folder / name


def write_text(folder: Path, name: str, text: str) -> Path:
    """A file of text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def prepared(folder: Path, catalogue: dict[str, Any] | None = None, **events: Any) -> Prepared:
    """Prepare with these keys of `events` and `catalogue`, into `folder/run`."""
    tree: dict[str, Any] = {"output_dir": str(folder / "run"), "events": events}
    if catalogue:
        tree["catalogue"] = catalogue
    return prepare(PrepareConfig.model_validate(tree))


def sequences(done: Prepared) -> dict[str, list[str]]:
    """User → items, of `interactions.parquet`."""
    table = pyarrow.parquet.read_table(done.folder / "interactions.parquet").to_pydict()
    return dict(zip(table["user_id"], table["items"], strict=True))


def rows(done: Prepared, split: str) -> list[tuple[str, list[str], str, int]]:
    """User, history, target and time in seconds, of one split."""
    table = pyarrow.parquet.read_table(done.folder / f"{split}.parquet")
    seconds = [value // 1_000_000 for value in table["time"].cast(pa.int64()).to_pylist()]
    names = (table[name].to_pylist() for name in ("user_id", "history", "item_id"))
    return list(zip(*names, seconds, strict=True))


def dropped(done: Prepared) -> dict[str, int]:
    """Step → events that it dropped, for the steps that dropped some."""
    counts: Counter[str] = Counter()
    for step in json.loads((done.folder / "summary.json").read_text())["steps"]:
        counts[step["name"]] += step["dropped"]
    return {name: count for name, count in counts.items() if count}


def slow_core(events: Sequence[Event], least: int) -> list[Event]:
    """The k-core, one event after another until none goes."""
    left = list(events)
    while True:
        users, items = Counter(event[0] for event in left), Counter(event[1] for event in left)
        poor = [event for event in left if users[event[0]] < least or items[event[1]] < least]
        if not poor:
            return left
        left.remove(poor[0])


def slow_sequences(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Each user's events by time, then by item; users in the order of their ids."""
    found: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: (event[0].encode(), event[2], event[1].encode())):
        found.setdefault(event[0], []).append(event)
    return found


def slow_rows(events: Sequence[Event], history: int) -> list[tuple[str, list[str], str, int]]:
    """A row for every event that has another of its user before it, in the order of time."""
    found = []
    for user, own in slow_sequences(events).items():
        for place in range(1, len(own)):
            before = [event[1] for event in own[max(0, place - history) : place]]
            found.append((user, before, own[place][1], own[place][2]))
    return sorted(found, key=lambda row: row[3])
