"""Events to rows: by hand, against a slow reference, and what must hold whatever the events are."""

from __future__ import annotations

import gzip
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("ibis", reason="pip install 'sidtune[prepare]'")
pytest.importorskip("duckdb", reason="pip install 'sidtune[prepare]'")

from tests.made_events import (
    START,
    Event,
    dropped,
    prepared,
    rows,
    sequences,
    slow_core,
    slow_rows,
    slow_sequences,
    write_events,
    write_text,
)

from sidtune.base.errors import UserError
from sidtune.data import rows as data_rows
from sidtune.data.catalogue import Catalogue
from sidtune.data.leave_one_out import read_interactions
from sidtune.data.rows import load_rows
from sidtune.events import rows as event_rows

SMALL = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
# Few users, items and times, so that much is equal.
EVENT = st.tuples(
    st.sampled_from(["u", "v", "10", "9", "ä"]),
    st.sampled_from(["a", "b", "B", "10", "9"]),
    st.integers(START, START + 6),
    st.sampled_from([1.0, 2.5, 5.0]),
)
EVENTS = st.lists(EVENT, min_size=12, max_size=40)


# --- by hand ---


def test_sequences_by_hand(tmp_path: Path) -> None:
    events = [
        ("u", "b", START + 2, 5.0),
        ("u", "a", START + 1, 4.0),
        ("u", "c", START + 3, 1.0),
        ("v", "b", START, 3.0),
        ("v", "a", START, 3.0),
    ]
    done = prepared(tmp_path, files=str(write_events(tmp_path, events)), min_rating=3)
    assert sequences(done) == {"u": ["a", "b"], "v": ["a", "b"]}
    assert dropped(done) == {"events.min_rating": 1}
    table = pyarrow.parquet.read_table(done.folder / "interactions.parquet")
    assert table.schema.field("times").type.value_type == pa.timestamp("us", "UTC")
    assert table["times"].to_pylist()[0][0].timestamp() == START + 1
    assert done.summary["result"]["events_ordered_by_item"] == 2


def test_rows_by_hand(tmp_path: Path) -> None:
    """Ten targets: eight train, one validates, one tests; histories keep the latest two."""
    events = [("u", item, START + place, 5.0) for place, item in enumerate("abcdefghijk")]
    done = prepared(
        tmp_path, files=str(write_events(tmp_path, events)), split="global_time", history=2
    )
    train, valid, test = (rows(done, split) for split in ("train", "valid", "test"))
    assert train[0] == ("u", ["a"], "b", START + 1)
    assert train[-1] == ("u", ["g", "h"], "i", START + 8)
    assert valid == [("u", ["h", "i"], "j", START + 9)]
    assert test == [("u", ["i", "j"], "k", START + 10)]
    assert done.summary["held_out_targets_not_in_training"] == {"valid": 1, "test": 1}


def test_cut_dates(tmp_path: Path) -> None:
    lines = ["user_id,item_id,time"]
    lines += [f"u,{item},2020-01-0{day}" for day, item in enumerate("abcde", start=1)]
    path = write_text(tmp_path, "events.csv", "\n".join(lines))
    done = prepared(
        tmp_path, files=str(path), split={"valid": "2020-01-04", "test": "2020-01-05T00:00:00Z"}
    )
    assert [row[2] for row in rows(done, "train")] == ["b", "c"]
    assert [row[2] for row in rows(done, "valid")] == ["d"]
    assert [row[2] for row in rows(done, "test")] == ["e"]


def test_a_cut_within_a_second(tmp_path: Path) -> None:
    lines = ["user_id,item_id,time"]
    lines += [f"u,{item},2020-01-01T00:00:00.{part}" for part, item in enumerate("abcde")]
    path = write_text(tmp_path, "events.csv", "\n".join(lines))
    split = {"valid": "2020-01-01T00:00:00.300Z", "test": "2020-01-01T00:00:00.400Z"}
    done = prepared(tmp_path, files=str(path), split=split)
    found = {name: [row[2] for row in rows(done, name)] for name in ("train", "valid", "test")}
    assert found == {"train": ["b", "c"], "valid": ["d"], "test": ["e"]}


def test_a_position_orders_equal_times(tmp_path: Path) -> None:
    text = "user_id,item_id,time,position\nu,a,2020-01-01,3\nu,b,2020-01-01,1\nu,c,2020-01-01,2\n"
    done = prepared(tmp_path, files=str(write_text(tmp_path, "e.csv", text)))
    assert sequences(done) == {"u": ["b", "c", "a"]}


def test_numbers_of_nineteen_digits_are_told_apart_as_positions(tmp_path: Path) -> None:
    first = 1_588_888_888_123_456_789
    text = "user_id,item_id,position\n" + "".join(
        f"u,{item},{first + place}\n" for place, item in enumerate("zyx")
    )
    done = prepared(tmp_path, files=str(write_text(tmp_path, "e.csv", text)))
    assert sequences(done) == {"u": ["z", "y", "x"]}


def test_positions_alone_are_an_order_and_no_dates(tmp_path: Path) -> None:
    path = write_text(tmp_path, "e.csv", "user_id,item_id,position\nu,a,3\nu,b,1\nu,c,20\n")
    done = prepared(tmp_path, files=str(path))
    assert sequences(done) == {"u": ["b", "a", "c"]}
    assert pyarrow.parquet.read_table(done.folder / "interactions.parquet")[
        "times"
    ].to_pylist() == [[1, 3, 20]]
    for keys in ({"split": "global_time"}, {"start": "2020-01-01"}, {"repeat_gap": 10}):
        with pytest.raises(UserError, match="needs dates"):
            prepared(tmp_path, files=str(path), **keys)


@pytest.mark.parametrize(
    ("first", "second", "seconds"),
    [
        ("27-04-2015", "03-04-2015 08:05", [1428048300, 1430092800]),
        ("4/27/2015", "4/3/2015 8:05", [1428048300, 1430092800]),
        ("27.04.2015 00:00:00+02:00", "03.04.2015 08:05:00+02:00", [1428041100, 1430085600]),
        ("2015/4/27", "2015/4/3 8:05", [1428048300, 1430092800]),
        ("2015年4月27日", "2015年4月3日 8:05", [1428048300, 1430092800]),
        ("20150427", "20150403", [1428019200, 1430092800]),
        ("20150427000000", "20150403080500", [1428048300, 1430092800]),
        ("20150427", "20150403.0", [1428019200, 1430092800]),
    ],
)
def test_dates_are_read_as_people_write_them(
    tmp_path: Path, first: str, second: str, seconds: list[int]
) -> None:
    text = f"user,item,time\nu,a,{first}\nu,b,{second}\n"
    done = prepared(tmp_path, files=str(write_text(tmp_path, "e.csv", text)))
    assert sequences(done) == {"u": ["b", "a"]}
    times = pyarrow.parquet.read_table(done.folder / "interactions.parquet")["times"]
    assert [[time // 1_000_000 for time in row] for row in _micros(times)] == [seconds]


@pytest.mark.parametrize(
    ("order", "items"), [("day_first", ["a", "b"]), ("month_first", ["b", "a"])]
)
def test_day_and_month_that_no_value_tells_apart(
    tmp_path: Path, order: str, items: list[str]
) -> None:
    path = write_text(tmp_path, "e.csv", "user,item,time\nu,a,03/04/2020\nu,b,02/05/2020\n")
    assert sequences(prepared(tmp_path, files=str(path), time_unit=order)) == {"u": items}


def test_few_broken_dates_in_digits_are_counted(tmp_path: Path) -> None:
    text = "user,item,time\nu,a,20200428\nu,b,20200427\nu,c,00000000\nu,d,0\nu,e,\n"
    done = prepared(tmp_path, files=str(write_text(tmp_path, "e.csv", text)))
    assert (sequences(done), dropped(done)) == ({"u": ["b", "a"]}, {"input": 3})
    path = str(write_text(tmp_path, "e.csv", f"{text}u,f,20201345\n"))
    with pytest.raises(UserError, match="look like an order") as refusal:
        prepared(tmp_path, files=path)
    assert "digits for dates such as" in refusal.value.hint
    done = prepared(tmp_path, files=path, time_unit="digits")
    assert (sequences(done), dropped(done)) == ({"u": ["b", "a"]}, {"input": 4})
    path = str(write_text(tmp_path, "e.csv", f"{text}u,f,20201345\n" + "u,g,20200429\n" * 97))
    done = prepared(tmp_path, files=path)
    assert dropped(done) == {"input": 4}, "one in a hundred needs no word"


def test_few_wrong_dates_among_many_are_counted(tmp_path: Path) -> None:
    text = "user,item,time\nu,a,27/04/2020\nu,b,28/05/2020\nu,c,04/27/2020\nu,d,31/02/2020\n"
    path = str(write_text(tmp_path, "e.csv", text))
    with pytest.raises(UserError, match=r"in 2 dates the day comes first, .* in 1 the month, as"):
        prepared(tmp_path, files=path)
    done = prepared(tmp_path, files=path, time_unit="day_first")
    assert dropped(done) == {"input": 2}
    assert sequences(done) == {"u": ["a", "b"]}


def _micros(column: pa.ChunkedArray) -> list[list[int]]:
    return [
        [int(value) for value in row]
        for row in column.combine_chunks().cast(pa.list_(pa.int64())).to_pylist()
    ]


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_a_csv_may_have_other_signs_between_its_columns(tmp_path: Path, sign: str) -> None:
    text = "user,item,time\nu,a,2020-01-02\nu,b,2020-01-01\n".replace(",", sign)
    items = 'id,title\na,"Mug; blue|red"\nb,Tent\n'.replace(",", sign)
    write_text(tmp_path, "items.csv", items)
    done = prepared(
        tmp_path,
        {"file": str(tmp_path / "items.csv")},
        files=str(write_text(tmp_path, "e.csv", text)),
    )
    assert sequences(done) == {"u": ["b", "a"]}
    titles = pyarrow.parquet.read_table(done.folder / "catalogue.parquet")["title"].to_pylist()
    assert titles == ["Mug; blue|red", "Tent"]


def test_types_and_weights(tmp_path: Path) -> None:
    text = "user_id,item_id,time,event_type\n" + "".join(
        f"u,{item},2020-01-01 00:00:0{place},{kind}\n"
        for place, (item, kind) in enumerate(
            [("a", "view"), ("b", "buy"), ("c", "scroll"), ("d", "view")]
        )
    )
    path = write_text(tmp_path, "e.csv", text)
    done = prepared(tmp_path, files=str(path), types={"view": 1, "buy": 2.5})
    table = pyarrow.parquet.read_table(done.folder / "interactions.parquet")
    assert table.schema.field("weights").type == pa.list_(pa.float64())
    assert (table["items"].to_pylist(), table["weights"].to_pylist()) == (
        [["a", "b", "d"]],
        [[1.0, 2.5, 1.0]],
    )
    assert dropped(done) == {"events.types": 1}
    assert sequences(prepared(tmp_path, files=str(path), types=["buy"])) == {"u": ["b"]}


def test_repeats_within_a_gap(tmp_path: Path) -> None:
    """Each repeat is measured from the one before it, whether that stays or not; another item does
    not matter.
    """
    times = [0, 10, 21, 31, 32]
    events = [("u", "a", START + second, 5.0) for second in times] + [("u", "b", START + 5, 5.0)]
    done = prepared(tmp_path, files=str(write_events(tmp_path, events)), repeat_gap=10)
    assert sequences(done) == {"u": ["a", "b", "a"]}
    assert dropped(done) == {"events.repeat_gap": 3}


def test_the_window_has_its_start_and_not_its_end(tmp_path: Path) -> None:
    lines = [f"u,{item},2020-01-0{day} 00:00:00" for day, item in enumerate("abcd", start=1)]
    path = write_text(tmp_path, "e.csv", "\n".join(["user,item,time", *lines]))
    done = prepared(tmp_path, files=str(path), start="2020-01-02", end="2020-01-04")
    assert sequences(done) == {"u": ["b", "c"]}
    assert dropped(done) == {"events.start": 1, "events.end": 1}


def test_the_latest_events_of_a_user(tmp_path: Path) -> None:
    events = [("u", item, START + place, 5.0) for place, item in enumerate("abcd")]
    done = prepared(tmp_path, files=str(write_events(tmp_path, events)), latest=2)
    assert sequences(done) == {"u": ["c", "d"]}


# --- against a slow reference ---


@given(EVENTS, st.integers(2, 3))
@SMALL
def test_sequences_are_those_of_the_slow_way(events: list[Event], least: int) -> None:
    expected = slow_sequences(slow_core(events, least))
    with tempfile.TemporaryDirectory() as name:
        path = write_events(Path(name), events)
        if not expected:
            with pytest.raises(UserError, match=r"events\.k_core left no event"):
                prepared(Path(name), files=str(path), k_core=least)
            return
        done = prepared(Path(name), files=str(path), k_core=least)
        found = sequences(done)
        assert list(found) == list(expected)
        assert found == {user: [event[1] for event in own] for user, own in expected.items()}


@given(EVENTS, st.integers(1, 4), st.sampled_from([1, 5, 1_000]))
@SMALL
def test_rows_are_those_of_the_slow_way_and_nothing_leaks(
    events: list[Event], history: int, at_once: int
) -> None:
    expected = slow_rows(events, history)
    cuts = [0, len(expected) * 8 // 10, len(expected) * 9 // 10, len(expected)]
    if not 0 < cuts[1] < cuts[2] < cuts[3]:
        return
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_rows, "ITEMS_AT_ONCE", at_once)
        done = prepared(
            Path(name),
            files=str(write_events(Path(name), events)),
            split="global_time",
            history=history,
        )
        parts = [rows(done, split) for split in ("train", "valid", "test")]
    for part, start, end in zip(parts, cuts[:-1], cuts[1:], strict=True):
        assert sorted(part) == sorted(expected[start:end])
    assert max(row[3] for row in parts[0]) <= min(row[3] for row in parts[1])
    assert max(row[3] for row in parts[1]) <= min(row[3] for row in parts[2])
    _refuse_leaks(events, parts)


def test_a_user_whose_rows_would_not_fit_into_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [("w", f"i{n % 9}", START + n, 1.0) for n in range(1_500)]
    events += [(f"u{n % 50}", f"i{n % 9}", START + n, 1.0) for n in range(500)]
    keys = {"files": str(write_events(tmp_path, events)), "split": "global_time"}
    monkeypatch.setattr(data_rows, "memory", lambda: 1 << 20)
    with pytest.raises(UserError, match=r"user w has .* with histories of up to 1,") as found:
        prepared(tmp_path, **keys, history=1_500)
    assert "events.history" in found.value.hint
    assert "events.latest" in found.value.hint
    assert prepared(tmp_path, **keys).summary["rows"]["train"] > 1_000, "20 items by default"


def _refuse_leaks(events: list[Event], parts: list[list[tuple[str, list[str], str, int]]]) -> None:
    """Each event is in one place of its user's order: no held-out place is in training, and
    histories come before.
    """
    order = {
        user: [(event[2], event[1]) for event in own]
        for user, own in slow_sequences(events).items()
    }
    taken: dict[str, list[int]] = {user: [] for user in order}
    trained: set[tuple[str, int]] = set()
    for number, part in enumerate(parts):
        for user, history, target, time in part:
            own = order[user]
            # Rows of a user stand in order, so each is the next place with this time and item.
            place = next(
                at
                for at, (when, item) in enumerate(own)
                if (when, item) == (time, target) and at and at not in taken[user]
            )
            taken[user].append(place)
            before = own[max(0, place - len(history)) : place]
            assert [item for _, item in before] == history
            assert all(when <= time for when, _ in before)
            if number == 0:
                trained |= {(user, at) for at in range(place - len(history), place + 1)}
            else:
                assert (user, place) not in trained


# --- what is read ---


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "csv.gz", "folder", "pattern", "duckdb"])
def test_every_kind_of_table_says_the_same(tmp_path: Path, kind: str) -> None:
    events = [("u", "a,1", START, 5.0), ("u", 'q"b', START + 1, 4.0), ("v", "c", START + 2, 3.0)]
    expected = {"u": ["a,1", 'q"b'], "v": ["c"]}
    keys: dict[str, str] = {}
    if kind == "duckdb":
        import duckdb

        with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
            connection.execute(
                f"create table log as select * from '{write_events(tmp_path, events)}'"
            )
        keys = {"database": str(tmp_path / "shop.duckdb"), "table": "log"}
    elif kind in ("folder", "pattern"):
        write_events(tmp_path / "many [1]", events[:1], "1.parquet")
        write_events(tmp_path / "many [1]", events[1:], "2.parquet")
        write_text(tmp_path / "many [1]", "_SUCCESS", "")
        keys = {"files": str(tmp_path / "many [1]") + ("/*.parquet" if kind == "pattern" else "")}
    elif kind == "jsonl":
        lines = [
            json.dumps({"user_id": u, "item_id": i, "ts": t, "rating": r}) for u, i, t, r in events
        ]
        keys = {"files": str(write_text(tmp_path, "e.jsonl", "\n".join(lines)))}
    else:
        sign = "\t" if kind == "tsv" else ","
        quoted = [
            [
                (
                    f'"{field}"'.replace('q"b', 'q""b')
                    if not isinstance(field, int | float)
                    else str(field)
                )
                for field in event
            ]
            for event in events
        ]
        text = (
            "\r\n".join(map(sign.join, [["user_id", "item_id", "ts", "rating"], *quoted])) + "\r\n"
        )
        path = write_text(tmp_path, f"e.{kind}", text)
        if kind.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        keys = {"files": str(path)}
    assert sequences(prepared(tmp_path, **keys)) == expected


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_folder_named_like_a_column_is_no_column(tmp_path: Path, kind: str) -> None:
    events = [("u", "a", START + 1, 5.0), ("u", "b", START, 5.0)]
    names = ("user_id", "item_id", "timestamp", "rating")
    folder = tmp_path / "item_id=7" / "timestamp=2020-01-01"
    if kind == "parquet":
        path = write_events(folder, events)
    elif kind == "csv":
        lines = [",".join(map(str, event)) for event in (names, *events)]
        path = write_text(folder, "e.csv", "\n".join(lines))
    else:
        lines = [json.dumps(dict(zip(names, event, strict=True))) for event in events]
        path = write_text(folder, "e.jsonl", "\n".join(lines))
    assert sequences(prepared(tmp_path / "user_id=8", files=str(path))) == {"u": ["b", "a"]}


def test_numbers_and_texts_are_one_id(tmp_path: Path) -> None:
    """17, 17.0 and "17" are one item, in files of different types and in the catalogue."""
    one = pa.table({"user": [1.0, 2.0], "item": [17, 18], "time": [START, START + 1]})
    other = pa.table(
        {"user": ["1", "2.0"], "item": ["18.0", "017"], "time": [START + 2, START + 3]}
    )
    for name, table in (("1", one), ("2", other)):
        (tmp_path / "many").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, tmp_path / "many" / f"{name}.parquet")
    items = write_text(tmp_path, "items.csv", "id,title\n17,Mug\n18.0,Tent\n017,Sock\n")
    done = prepared(tmp_path, {"file": str(items)}, files=str(tmp_path / "many"))
    assert sequences(done) == {"1": ["17", "18"], "2": ["18", "017"]}
    assert pyarrow.parquet.read_table(done.folder / "catalogue.parquet").to_pydict() == {
        "item_id": ["017", "17", "18"],
        "title": ["Sock", "Mug", "Tent"],
    }


def test_training_reads_what_prepare_wrote(tmp_path: Path) -> None:
    events = [
        (user, item, START + place, 5.0) for user in "uv" for place, item in enumerate("abcabcabc")
    ]
    path = str(write_events(tmp_path, events))
    shop = Catalogue(
        ["a", "b", "c"], ["A", "B", "C"], [""] * 3, [("<a_1>",), ("<a_2>",), ("<a_3>",)]
    )
    whole = read_interactions(prepared(tmp_path, files=path).folder / "interactions.parquet", shop)
    assert whole.users.to_pylist() == ["u", "v"]
    assert whole.items[1].tolist() == [0, 1, 2] * 3
    done = prepared(tmp_path, files=path, split="global_time")
    train = load_rows(done.folder / "train.parquet", shop)
    assert train.history[0].tolist() == [0]
    assert len(train.target) == done.summary["rows"]["train"] == 12


def test_nothing_changed_nothing_done(tmp_path: Path) -> None:
    path = write_events(tmp_path, [("u", "a", START, 5.0), ("u", "b", START + 1, 5.0)])
    first = prepared(tmp_path, files=str(path))
    before = {file: file.stat().st_mtime_ns for file in first.folder.iterdir()}
    again = prepared(tmp_path, files=str(path.rename(tmp_path / "moved.parquet")))
    assert (first.again, again.again, again.folder) == (False, True, first.folder)
    assert {file: file.stat().st_mtime_ns for file in first.folder.iterdir()} == before
    other = prepared(tmp_path, files=str(tmp_path / "moved.parquet"), latest=1)
    assert other.folder != first.folder
    assert {entry.name for entry in first.folder.parent.iterdir()} == {
        first.folder.name,
        other.folder.name,
    }


def test_the_order_of_a_catalogues_files_counts(tmp_path: Path) -> None:
    events = str(write_events(tmp_path, [("u", "a", START, 5.0), ("u", "b", START + 1, 5.0)]))
    catalogue = {"file": str(tmp_path / "items")}
    file = write_text(tmp_path / "items", "1.csv", "id,title\na,Mug\nb,Pen\n")
    write_text(tmp_path / "items", "2.csv", "id,title\na,Cup\n")
    for title in ("Mug", "Cup"):
        done = prepared(tmp_path, catalogue, files=events)
        assert pyarrow.parquet.read_table(done.catalogue)["title"].to_pylist()[0] == title
        if file.exists():
            file.rename(tmp_path / "items" / "3.csv")


def test_a_broken_summary_is_told(tmp_path: Path) -> None:
    path = write_events(tmp_path, [("u", "a", START, 5.0), ("u", "b", START + 1, 5.0)])
    done = prepared(tmp_path, files=str(path))
    (done.folder / "summary.json").write_text('{"rows": ')
    with pytest.raises(UserError, match=r"summary\.json: not valid JSON"):
        prepared(tmp_path, files=str(path))


def test_another_process_may_be_faster_by_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(made: Path, done: Path) -> None:
        shutil.copytree(made, done)
        rename(made, done)

    monkeypatch.setattr(os, "rename", late)
    path = write_events(tmp_path, [("u", "a", START, 5.0), ("u", "b", START + 1, 5.0)])
    done = prepared(tmp_path, files=str(path))
    assert sequences(done) == {"u": ["a", "b"]}
    assert [folder.name for folder in done.folder.parent.iterdir()] == [done.folder.name]


def test_what_a_process_of_the_same_number_left_is_removed(tmp_path: Path) -> None:
    home = tmp_path / "run" / "prepared"
    left = [home / f".partial-{platform.node()}-{os.getpid()}{end}" for end in ("", "-abcdefgh")]
    for folder in left:
        folder.mkdir(parents=True)
    done = prepared(tmp_path, files=str(write_events(tmp_path, [("u", "a", START, 5.0)] * 3)))
    assert [*home.iterdir()] == [done.folder]
