"""Time `sidtune prepare` on made-up events: 100 thousand to 10 million, 1 million with dates as
text, and 1 million beside a plain pandas script.

Both read the same Parquet file, reduce the events to their 5-core, and write a row of at most 20
items of history for every event that has another of its user before it, split 8:1:1 by time. The
pandas script goes over the users one after another, as data preparation is mostly written. Its rows
must equal ours.

Every size runs in a process of its own, whose peak of memory counts everything. The clock of both
starts when their libraries are imported, which is told apart. The seconds of CPU, of all threads,
tell more than the clock where the machine is shared.

    python benchmarks/prepare.py [EVENTS ...]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
COMPARED = 1_000_000
EVENTS_OF_USER, EVENTS_OF_ITEM = 10, 50
CORE, HISTORY = 5, 20
SPLITS = ("train", "valid", "test")
OUTCOME = Path(__file__).with_suffix(".json")
PREDICTION = (
    "Written down before the first run: a loop over users costs pandas about half a millisecond a"
    " user and some microseconds a row, so 1 million events take it about a minute; sorting,"
    " counting and cutting in columns takes under 3 seconds. 10 million take under 60 seconds and 4"
    " GB, and time grows linearly."
)


def main() -> None:
    """Run every size, compare one of them, and leave the JSON."""
    sizes = [int(given) for given in sys.argv[1:]] or list(SIZES)
    print(PREDICTION)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {f"{size:,}": measured("ours", size, folder) for size in sizes}
        for size, row in results.items():
            print(
                f"{size:>12} events {as_line(row)} {row['peak_gib']:>6.2f} GiB {row['rows']:>12,}"
                " rows"
            )
        compared: dict[str, Any] = {}
        dates: dict[str, Any] = {}
        if COMPARED in sizes:
            dates = measured("ours", COMPARED, folder / "dates", dates=True)
            print(f"{COMPARED:>12,} events with dates as text {as_line(dates)}")
            compared = compare(results[f"{COMPARED:,}"], folder)
            print(
                f"pandas {as_line(compared['pandas'])}, {compared['ratio']:.1f}x, equal:"
                f" {compared['equal']}"
            )
    outcome = {
        "prediction": PREDICTION,
        "cores": os.cpu_count(),
        "sizes": results,
        "dates as text": dates,
        "pandas": compared,
    }
    OUTCOME.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")


def as_line(row: dict[str, Any]) -> str:
    """Seconds of a run."""
    return f"{row['seconds']:>8.1f} s {row['cpu_seconds']:>8.1f} s of CPU"


def compare(ours: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The pandas script on the same events, and whether its rows are the same."""
    row = measured("pandas", COMPARED, folder)
    prepared = next((folder / f"run-{COMPARED}" / "prepared").glob("*/summary.json")).parent
    equal = all(
        same_rows(prepared / f"{split}.parquet", folder / f"{split}.parquet") for split in SPLITS
    )
    return {
        "events": COMPARED,
        "pandas": row,
        "ratio": row["seconds"] / ours["seconds"],
        "equal": equal,
    }


def same_rows(one: Path, other: Path) -> bool:
    """Whether two files hold the same rows; pandas writes them in the order of time."""
    tables = [
        pyarrow.parquet.read_table(path, columns=["user_id", "history", "item_id", "time"])
        for path in (one, other)
    ]
    frames = [table.to_pandas() for table in tables]
    texts = []
    for frame in frames:
        frame["history"] = [" ".join(items) for items in frame["history"]]
        frame["time"] = frame["time"].astype("int64")
        texts.append(
            frame.sort_values(["user_id", "time", "item_id", "history"]).reset_index(drop=True)
        )
    return bool((texts[0].to_numpy() == texts[1].to_numpy()).all()) and len(texts[0]) > 0


def measured(which: str, size: int, folder: Path, dates: bool = False) -> dict[str, Any]:
    """Seconds, peak memory and rows of a run in a process of its own.

    Args:
        dates: whether times are dates as text.
    """
    events = folder / f"events-{size}.parquet"
    if not events.exists():
        folder.mkdir(exist_ok=True)
        make_events(size, events, dates)
    code = (
        f"import runpy; print(runpy.run_path({__file__!r})[{which!r}]({str(events)!r}, {size},"
        f" {str(folder)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_events(size: int, path: Path, dates: bool, seed: int = 0) -> None:
    """Events of users with few and many, popular items more often, at distinct seconds mostly."""
    random = np.random.default_rng(seed)
    users = (random.pareto(1.5, size) * size / EVENTS_OF_USER / 4).astype(np.int64) % (
        size // EVENTS_OF_USER
    )
    items = (random.pareto(1.0, size) * size / EVENTS_OF_ITEM / 8).astype(np.int64) % (
        size // EVENTS_OF_ITEM
    )
    times = random.integers(1_500_000_000, 1_560_000_000, size)
    table = pa.table(
        {
            "user_id": pa.array(users).cast(pa.string()),
            "item_id": pa.array(items).cast(pa.string()),
            "timestamp": as_dates(times) if dates else times,
        }
    )
    pyarrow.parquet.write_table(table, path)


def as_dates(times: np.ndarray) -> pa.Array:
    """Seconds since 1970 as text, 2017-07-14 02:40:00."""
    return pc.strftime(pa.array(times, pa.timestamp("s")), "%Y-%m-%d %H:%M:%S")


def ours(events: str, size: int, folder: str) -> str:
    """`prepare` on a file, as JSON."""
    import_started = time.perf_counter()
    import ibis

    from sidtune.config.events import PrepareConfig
    from sidtune.events.prepare import prepare

    ibis.duckdb.connect().disconnect()
    clock = Clock(time.perf_counter() - import_started)
    tree = {
        "output_dir": f"{folder}/run-{size}",
        "events": {"files": events, "k_core": CORE, "split": "global_time"},
    }
    done = prepare(PrepareConfig.model_validate(tree))
    return clock.told(sum(done.summary["rows"].values()))


def pandas(events: str, size: int, folder: str) -> str:
    """The same rows by a loop over users."""
    clock = Clock(0)
    frame = pd.read_parquet(events)
    while True:
        before = len(frame)
        users = frame["user_id"].value_counts()
        frame = frame[frame["user_id"].isin(users[users >= CORE].index)]
        items = frame["item_id"].value_counts()
        frame = frame[frame["item_id"].isin(items[items >= CORE].index)]
        if len(frame) == before:
            break
    rows = []
    for user, group in frame.groupby("user_id"):
        ordered = group.sort_values(["timestamp", "item_id"])
        items = ordered["item_id"].tolist()
        times = ordered["timestamp"].tolist()
        for i in range(1, len(items)):
            rows.append((user, items[max(0, i - HISTORY) : i], items[i], times[i]))
    rows.sort(key=lambda row: row[3])
    cuts = [0, len(rows) * 8 // 10, len(rows) * 9 // 10, len(rows)]
    for split, start, end in zip(SPLITS, cuts[:-1], cuts[1:], strict=True):
        part = pd.DataFrame(rows[start:end], columns=["user_id", "history", "item_id", "time"])
        part["time"] = pd.to_datetime(part["time"], unit="s", utc=True).astype(
            "datetime64[us, UTC]"
        )
        part.to_parquet(f"{folder}/{split}.parquet")
    return clock.told(len(rows))


class Clock:
    """What a process takes from now on.

    Args:
        imports: seconds that its libraries took, beside those of this file.
    """

    def __init__(self, imports: float) -> None:
        self.imports, self.started, self.cpu = imports, time.perf_counter(), time.process_time()

    def told(self, rows: int) -> str:
        """What it took so far, as JSON."""
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found = {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "import_seconds": self.imports,
            "peak_gib": peak,
        }
        return json.dumps({name: round(value, 2) for name, value in found.items()} | {"rows": rows})


if __name__ == "__main__":
    main()
