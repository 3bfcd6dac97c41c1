"""Spark gives the rows of DuckDB, in the same order."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

if any(importlib.util.find_spec(name) is None for name in ("ibis", "duckdb", "pyspark")):
    pytest.skip("pip install 'sidtune[spark]'", allow_module_level=True)
if shutil.which("java") is None:
    pytest.skip("Spark needs Java, and none is installed", allow_module_level=True)

from tests.made_events import START, prepared, write_text

from sidtune.base.errors import UserError

# Little is run often enough to be worth compiling well: this halves the time.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

KEYS: dict[str, Any] = {
    "start": "2017-01-01",
    "min_rating": 2,
    "repeat_gap": 5,
    "types": {"view": 1, "buy": 2.5},
    "k_core": 2,
    "latest": 12,
    "split": "global_time",
    "history": 4,
}


def folder_of_events(folder: Path) -> Path:
    """Events in files of different types: dates of two zones and in nanoseconds, ids as numbers and
    as text.
    """
    draw = random.Random(1)
    users, items = (
        ["u1", "ü", "7", "7.0", "10", "9", "B", "b", None],
        ["17", "17.0", "é", "x y", "10", "9", "a'b"],
    )
    folder.mkdir()
    for number, kind in enumerate(
        [pa.timestamp("us", "UTC"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("ns", "UTC")]
    ):
        size = 150
        table = {
            "user_id": [draw.choice(users) for _ in range(size)],
            "item_id": [draw.choice(items) for _ in range(size)],
            "rating": [draw.choice([1.0, 2.0, 5.0, None, float("nan")]) for _ in range(size)],
            "event_type": [draw.choice(["view", "buy", "scroll", None]) for _ in range(size)],
            "timestamp": (
                pa.array([(START + draw.randrange(60)) * 1_000_000 for _ in range(size)]).cast(kind)
                if kind.unit == "us"
                else pa.array(
                    [(START + draw.randrange(60)) * 1_000_000_000 for _ in range(size)]
                ).cast(kind)
            ),
        }
        if number == 0:
            table |= {"user_id": [draw.choice([7.0, 10.0, 2.5, None]) for _ in range(size)]}
        pyarrow.parquet.write_table(pa.table(table), folder / f"{number}.parquet")
    return folder


def test_rows_of_both_engines_are_the_same(tmp_path: Path) -> None:
    events = folder_of_events(tmp_path / "events")
    items = write_text(
        tmp_path, "items.csv", "id,title\n17,Mug\né,Tent\nx y,Sock\n10,Jar\n9,Pen\na'b,\n"
    )
    found = {
        name: prepared(
            tmp_path / name, {"file": str(items)}, files=str(events), engine=engine, **KEYS
        )
        for name, engine in (("duckdb", "duckdb"), ("spark", {"spark": "local[2]"}))
    }
    one, other = found["duckdb"], found["spark"]
    assert one.summary == other.summary
    assert all(one.summary["rows"].values())
    assert {step["name"] for step in one.summary["steps"] if step["dropped"]} >= {
        *(
            "input",
            "events.types",
            "events.min_rating",
            "events.repeat_gap",
            "catalogue.title",
            "events.latest",
        )
    }
    for file in ("train", "valid", "test", "catalogue"):
        tables = [
            pyarrow.parquet.read_table(done.folder / f"{file}.parquet") for done in (one, other)
        ]
        assert tables[0].equals(tables[1]), file


def test_texts_are_read_alike_and_faults_are_told_alike(tmp_path: Path) -> None:
    text = (
        'user,item,time\n"u, 1","a ""b""",2020-01-01 00:00:01+01:00\nv,c,2020-01-01 00:00:01-0230\n'
        '"u, 1",d,2020-01-01T00:00:00.123456Z\n'
    )
    path = str(write_text(tmp_path, "e.csv", text))
    tables = []
    for name, engine in (("duckdb", "duckdb"), ("spark", {"spark": "local[1]"})):
        done = prepared(tmp_path / name, files=path, engine=engine)
        tables.append(pyarrow.parquet.read_table(done.folder / "interactions.parquet"))
    assert tables[0].equals(tables[1])
    assert tables[0]["items"].to_pylist() == [['a "b"', "d"], ["c"]]
    with pytest.raises(UserError, match="Spark: "):
        prepared(tmp_path / "none", files=path, engine={"spark": "nonsense://x"})
