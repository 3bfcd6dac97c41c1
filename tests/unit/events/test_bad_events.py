"""Events and catalogues that are wrong in some way: one clear message, or a warning that counts
them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

pytest.importorskip("ibis", reason="pip install 'sidtune[prepare]'")
pytest.importorskip("duckdb", reason="pip install 'sidtune[prepare]'")

from pydantic import ValidationError
from tests.made_events import START, dropped, prepared, sequences, write_events, write_text

from sidtune.base.errors import UserError
from sidtune.config.events import EventsConfig
from sidtune.data.catalogue import read_texts
from sidtune.events import prepare as room
from sidtune.events.catalogue import clean
from sidtune.events.report import lines

RATED = {"comma": "4,5", "high": "4.5", "low": "3", "none": "", "blank": " 4 ", "word": "good"}
SOUND = "user,item,time\nu,a,1500000000\nu,b,1500000001\nv,a,1500000002\n"


def refused(
    folder: Path, text: str, match: str, catalogue: dict[str, Any] | None = None, **keys: Any
) -> None:
    """Refused with one message, and nothing is left."""
    with pytest.raises(UserError, match=match):
        prepared(folder, catalogue, files=str(write_text(folder, "events.csv", text)), **keys)
    assert list((folder / "run" / "prepared").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "user,item\nu,a\n",
            "events without time: no column is known as the time; found user, item",
        ),
        ("who,item,time\nu,a,1500000000\n", "no column is known as the user; found who"),
        ("user,item,time,time\nu,a,1,1\n", "the column 'time' stands twice"),
        (
            "user,item,time\nu,a,1500000000\nu,b,1500000000000\n",
            "several units: 1 in s since 1970, 1 in ms since 1970",
        ),
        (
            "user,item,time\nu,a,1500000000\nu,b,2020-01-01\n",
            "several units: 1 in s since 1970, 1 in dates as text",
        ),
        (
            "user,item,time\nu,a,2020-01-01 00:00:00Z\nu,b,2020-01-01\n",
            "1 times have a time zone and 1 have none",
        ),
        ("user,item,time\nu,a,1\nu,b,2\n", "look like an order and not like dates"),
        (
            "user,item,time\nu,a,03/04/2020\nu,b,05/06/2020\n",
            "none tells whether the day or the month comes first",
        ),
        (
            "user,item,time\nu,a,27/04/2020\nu,b,1500000000\n",
            "several units: 1 in s since 1970, 1 in dates as text",
        ),
        (
            "user,item,time\nu,a,yesterday\n",
            "input left no event: 1 events read; 1 dropped .* no time, or one that",
        ),
        ("user,item,time\nu,a,-5\n", "input left no event: .* time before 1970"),
        ("user,item,time\n,a,1500000000\n", "input left no event: .* no user id"),
        (f"{SOUND}u,a,1500000000,9\n", r"events\.csv, line 5: 4 fields, and the header has 3"),
        (f"{SOUND}u,a\n", r"events\.csv, line 5: 2 fields, and the header has 3"),
        (SOUND.replace("\n", "\r"), r"events\.csv: lines end with a carriage return alone"),
        (
            SOUND.replace("\n", "\r\n") + "v,b,1500000003\n",
            r"events\.csv: line 5 ends with a line feed, and line 1 with carriage return and",
        ),
        (
            SOUND + "v,b,1500000003\r\n",
            r"events\.csv: line 5 ends with carriage return and line feed, and line 1 with a line",
        ),
        (
            SOUND + "v,b,1500000003\rv,c,1500000004\n",
            r"events\.csv: line 5 holds a carriage return in its middle",
        ),
        (f"{SOUND}u,{'a' * (5 << 20)},1500000000\n", r"events\.csv, line 5: the record exceeds 4,"),
        (f'{SOUND}u,"a"x,1500000000\n', r"events\.csv, line 5: a field in double quotes .* goes"),
        ('user,item,time\nu,"a\nb",1500000000\n', "no item id, or one with a line break"),
        ('user,item,time\nu,"a,1500000000\n', r"events\.csv, line 2: .* quotes is not closed"),
        ("user,item,time\n", "no event"),
        ("", "is empty"),
    ],
)
def test_events_that_nothing_can_be_made_of(tmp_path: Path, text: str, match: str) -> None:
    refused(tmp_path, text, match)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"user": "users"}, "no column 'users'; did you mean user"),
        ({"min_rating": 3}, "no column is known as the rating"),
        ({"types": ["buy"]}, "no column is known as the type"),
        (
            {"start": "2030-01-01"},
            r"events\.start left no event: 3 events read; 3 dropped \(events\.start: before 2030",
        ),
        (
            {"k_core": 2, "end": "2018-01-01"},
            r"events\.k_core left no event: 3 events read; 3 dropped",
        ),
        ({"split": "global_time"}, "too few for three splits"),
        (
            {"split": {"valid": "1990-01-01", "test": "2050-01-01"}},
            "events.split left no training row: the events are from 2017-07-14 to 2017-07-14",
        ),
        (
            {"split": {"valid": "2040-01-01", "test": "2050-01-01"}},
            "events.split left no validation row",
        ),
    ],
)
def test_keys_that_do_not_fit_the_events(tmp_path: Path, keys: dict[str, Any], match: str) -> None:
    refused(tmp_path, SOUND, match, **keys)


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ("id,title\nx,Mug\ny,Tent\n", "catalogue left no event: .* item is not in the catalogue"),
        ("id,title\na,\nb,  \n", "catalogue.title left no event: .* item has no title"),
        ("id,title\na,Mug\nb,Mug\n", "every item has the same title: 'Mug'"),
        ("id,brand\na,Mug\n", "no column is known as the title; found id, brand"),
        ("id,title,id\na,Mug,1\n", "the column 'id' stands twice"),
        ("id,title\n", "holds no item"),
        ("id,title\r\na,Mug\nb,Tent\r\n", r"items\.csv: line 2 ends with a line feed, and line"),
        ("id,title\na,Mug, small\n", r"items\.csv, line 2: 3 fields, and the header has 2"),
    ],
)
def test_catalogues_that_nothing_can_be_made_of(tmp_path: Path, items: str, match: str) -> None:
    refused(tmp_path, SOUND, match, {"file": str(write_text(tmp_path, "items.csv", items))})


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"database": "x.duckdb", "table": "t"}, "give files, or database"),
        ({"history": 5}, "history has no effect with split: leave_one_out"),
        ({"shares": [7, 2, 1]}, "shares has no effect"),
        ({"time_unit": "order", "split": "global_time"}, "needs dates"),
        ({"time_unit": "order", "repeat_gap": 3}, "repeat_gap needs dates"),
        ({"start": "2020-01-02", "end": "2020-01-02"}, "end must be later than start"),
        ({"start": 2020}, "expected a date"),
        ({"start": "20200102"}, "expected a date"),
        ({"end": "2020.5"}, "expected a date"),
        ({"split": {"valid": "2020", "test": "2021-01-01"}}, "expected a date"),
        ({"split": {"valid": "2020-02-01", "test": "2020-01-01"}}, "test must be later"),
        ({"kcore": 5}, "Extra inputs"),
        ({"k_core": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_contradict_themselves(keys: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        EventsConfig.model_validate({"files": "x.csv", **keys})


def test_text_that_is_not_utf_8_is_found_behind_the_header_too(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_bytes(SOUND.encode() + "u,café,1500000003\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"events\.csv: not UTF-8: byte 0xe9 in line 5"):
        prepared(tmp_path, files=str(file))


def test_a_split_that_leaves_no_test_row_is_warned_of(tmp_path: Path) -> None:
    file = write_text(tmp_path, "e.csv", SOUND + "v,b,1500000003\n")
    split = {"valid": "2017-07-14 02:40:02", "test": "2050-01-01"}
    assert prepared(tmp_path, files=str(file), split=split).summary["warnings"] == [
        "events.split left no test row: the last event is before that date"
    ]


def test_users_of_two_events_are_told_to_hold_nothing_out(tmp_path: Path) -> None:
    none = "no user has 3 events or more: there are no validation and no test rows"
    few = "users of fewer than 3 events are for training alone: 1"
    longer = "u,c,1500000003\n"
    both = longer + longer.replace("u", "v") * 2
    for more, users, told in (("", 0, [none]), (longer, 1, [few]), (both, 2, [])):
        file = write_text(tmp_path, "e.csv", SOUND + more)
        said = list(lines(prepared(tmp_path, files=str(file))))
        assert f"2 sequences; the last two events of {users} are held out" in said
        assert [line for line in said if line in (none, few)] == told


def test_bad_events_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        SOUND
        + "u,c,\nu,c,soon\nu,c,0\nu,c,-3\nu,c,99999999999\n"
        + ",c,1500000000\nu,,1500000000\nu,2.0,1500000009\n"
    )
    done = prepared(tmp_path, files=str(write_text(tmp_path, "e.csv", text)))
    assert sequences(done) == {"u": ["a", "b", "2"], "v": ["a"]}
    assert dropped(done) == {"input": 7}
    assert [step["dropped"] for step in done.summary["steps"]] == [1, 1, 2, 3]
    said = capsys.readouterr().err
    assert "warning: 3 of 11 events left out: time before 1970 or after 2099" in " ".join(
        said.split()
    )
    assert done.summary["warnings"]


@pytest.mark.parametrize(
    "keys", [{"time_unit": "s"}, {"time_unit": "order"}, {"position": "order"}]
)
@pytest.mark.parametrize("kind", ["text", "float"])
def test_absurd_numbers_are_left_out_and_counted(
    tmp_path: Path, keys: dict[str, Any], kind: str
) -> None:
    times = ["1e300", "-1e300", "inf", "nan", "1500000000", "1500000001"]
    column = pa.array(times if kind == "text" else map(float, times))
    name = keys.get("position", "time")
    table = pa.table({"user": ["u"] * 6, "item": list("abcdef"), name: column})
    pyarrow.parquet.write_table(table, tmp_path / "e.parquet")
    done = prepared(tmp_path, files=str(tmp_path / "e.parquet"), **keys)
    assert (sequences(done), dropped(done)) == ({"u": ["e", "f"]}, {"input": 4})


@pytest.mark.parametrize(
    ("header", "keys"),
    [
        ("user,item,place", {"position": "place"}),
        ("user,item,place", {"time": "place", "time_unit": "order"}),
        ("user,item,time,place", {"position": "place"}),
    ],
)
def test_an_order_with_fractions_is_refused(
    tmp_path: Path, header: str, keys: dict[str, str]
) -> None:
    time = "2020-01-01," if "time" in header else ""
    places = {"b": "0.1", "a": "0.2", "c": "3.0"}
    events = "".join(f"u,{item},{time}{place}\n" for item, place in places.items())
    path = write_text(tmp_path, "e.csv", f"{header}\n{events}")
    match = r"e\.csv, column place: 2 numbers of the order have a fraction"
    with pytest.raises(UserError, match=match):
        prepared(tmp_path, files=str(path), **keys)


def test_blanks_of_every_kind_around_ids_are_removed_on_both_sides(tmp_path: Path) -> None:
    blanks = ["\u3000", "\u00a0", "\u2028", "\x0b", " "]
    names = [f"i{place}" for place in range(len(blanks))]
    events = pa.table(
        {
            "user": [f"{blank}u" for blank in blanks],
            "item": [name + blank for name, blank in zip(names, blanks, strict=True)],
            "time": [START + place for place in range(len(blanks))],
        }
    )
    items = [blank + name for name, blank in zip(names, blanks, strict=True)]
    pyarrow.parquet.write_table(events, tmp_path / "e.parquet")
    pyarrow.parquet.write_table(pa.table({"id": items, "title": items}), tmp_path / "i.parquet")
    catalogue = {"file": str(tmp_path / "i.parquet")}
    done = prepared(tmp_path, catalogue, files=str(tmp_path / "e.parquet"))
    assert (sequences(done), dropped(done)) == ({"u": names}, {})


def test_texts_that_are_marked_as_bytes_and_ids_that_are_uuids(tmp_path: Path) -> None:
    names = [uuid.UUID(int=number) for number in range(2)]
    ids = pa.array([name.bytes for name in names], pa.uuid())
    bytes_of = {"user": ["ü"] * 2, "time": ["2020-01-02", "2020-01-01"]}
    columns = {name: pa.array(map(str.encode, texts)) for name, texts in bytes_of.items()}
    events, items = tmp_path / "e.parquet", tmp_path / "i.parquet"
    pyarrow.parquet.write_table(pa.table({**columns, "item": ids}), events)
    texts = {"item": ids, "title": pa.array(["é".encode(), b"x"])}
    pyarrow.parquet.write_table(pa.table(texts), items)
    done = prepared(tmp_path, {"file": str(items)}, files=str(events))
    assert sequences(done) == {"ü": [str(names[1]), str(names[0])]}
    assert pyarrow.parquet.read_table(done.catalogue)["title"].to_pylist() == ["é", "x"]
    pyarrow.parquet.write_table(pa.table({**texts, "photo": pa.array([b"\xff", b""])}), items)
    with pytest.raises(UserError, match=r"column photo: the bytes are no text in UTF-8"):
        prepared(tmp_path, {"file": str(items)}, files=str(events))


def test_numbers_of_a_catalogue_are_written_as_titles_are(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "title": [1984.0, 0.5], "year": [float("nan"), 2001.0]})
    pyarrow.parquet.write_table(table, tmp_path / "i.parquet")
    events = str(write_text(tmp_path, "e.csv", SOUND))
    done = prepared(tmp_path, {"file": str(tmp_path / "i.parquet")}, files=events)
    found = pyarrow.parquet.read_table(done.catalogue).to_pydict()
    assert (found["title"], found["year"]) == (["1984", "0.5"], ["", "2001"])
    assert read_texts(tmp_path / "i.parquet")[:2] == found["title"], "as training reads them"


def test_columns_of_a_type_that_is_no_time_are_named(tmp_path: Path) -> None:
    table = pa.table({"user": ["u"], "item": ["a"], "time": [True]})
    pyarrow.parquet.write_table(table, tmp_path / "e.parquet")
    with pytest.raises(UserError, match=r"e\.parquet, column time: expected times, found .*bool"):
        prepared(tmp_path, files=str(tmp_path / "e.parquet"))


def test_files_of_a_catalogue_whose_types_differ_are_refused(tmp_path: Path) -> None:
    for name, ids in (("a", [1]), ("b", ["x"])):
        table = pa.table({"id": ids, "title": ["Mug"]})
        pyarrow.parquet.write_table(table, tmp_path / f"items-{name}.parquet")
    catalogue = {"file": str(tmp_path / "items-*.parquet")}
    refused(tmp_path, SOUND, r"items-\*\.parquet: .*id has incompatible types", catalogue)


def test_ids_that_are_no_whole_numbers(tmp_path: Path) -> None:
    table = pa.table({"user": [1.0, 2.5, None], "item": [1, 2, 3], "time": [START, START, START]})
    pyarrow.parquet.write_table(table, tmp_path / "e.parquet")
    done = prepared(tmp_path, files=str(tmp_path / "e.parquet"))
    assert (sequences(done), dropped(done)) == ({"1": ["1"]}, {"input": 2})


def test_items_without_a_place_in_the_catalogue_and_items_nobody_touched(tmp_path: Path) -> None:
    items = "id,title,brand\nb,&lt;b&gt;Red&lt;/b&gt; &amp;amp; blue  tent,<i>Acme</i>\n"
    items += "a,Mug,\na,Mug,\na,Cup,\nz,Sock,x\n,Pen,\n"
    catalogue = {"file": str(write_text(tmp_path, "items.csv", items))}
    events = str(write_text(tmp_path, "e.csv", SOUND + "v,q,1500000009\n"))
    done = prepared(tmp_path, catalogue, files=events)
    assert sequences(done) == {"u": ["a", "b"], "v": ["a"]}
    assert dropped(done) == {"catalogue": 1}
    assert pyarrow.parquet.read_table(done.folder / "catalogue.parquet").to_pydict() == {
        "item_id": ["a", "b"],
        "title": ["Mug", "Red & blue tent"],
        "brand": ["", "Acme"],
    }
    assert done.summary["catalogue"] == {
        "read": 6,
        "without_id": 1,
        "repeated_ids": 2,
        "repeated_ids_with_other_texts": 1,
        "items": 3,
        "untouched": 1,
    }
    assert len(done.summary["warnings"]) == 3
    kept = prepared(tmp_path, {**catalogue, "keep_untouched": True}, files=events)
    assert pyarrow.parquet.read_table(kept.folder / "catalogue.parquet")["item_id"].to_pylist() == [
        "a",
        "b",
        "z",
    ]


def test_the_id_of_a_catalogue_is_the_column_that_the_events_name_items_by(
    tmp_path: Path,
) -> None:
    """Row numbers would be other items of the same ids."""
    log = write_text(tmp_path, "log.csv", "user,product_id,ts\nu,1,2020-01-01\nu,2,2020-01-02\n")
    text = "id,Product ID,title\n1,2,Mug\n2,1,Tent\n"
    catalogue = {"file": str(write_text(tmp_path, "items.csv", text))}

    def titles(**keys: str) -> dict[str, str]:
        done = prepared(tmp_path, {**catalogue, **keys}, files=str(log))
        table = pyarrow.parquet.read_table(done.catalogue)
        return dict(zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True))

    assert titles() == {"1": "Tent", "2": "Mug"}
    assert titles(id="id") == {"1": "Mug", "2": "Tent"}, "what is named counts"


def test_json_lines_have_the_fields_of_all_files(tmp_path: Path) -> None:
    for number, more in enumerate(("", ', "rating": 5', ', "rating": 1')):
        line = f'{{"user": "u", "item": "i{number}", "ts": {START + number}{more}}}\n'
        write_text(tmp_path / "log", f"{number}.jsonl", line)
        line = f'{{"item": "i{number}", "title": "T{number}"{more.replace("rating", "stars")}}}\n'
        write_text(tmp_path / "items", f"{number}.jsonl", line)
    items = {"file": str(tmp_path / "items")}
    done = prepared(tmp_path, items, files=str(tmp_path / "log"), min_rating=3)
    assert sequences(done) == {"u": ["i1"]}
    assert pyarrow.parquet.read_table(done.catalogue)["stars"].to_pylist() == ["5"]


def test_fields_that_only_late_records_have_are_kept(tmp_path: Path) -> None:
    lines = [f'{{"user": "u", "item": "i{n % 9}", "ts": {START + n}}}\n' for n in range(1_200)]
    late = f'{{"user": "u", "item": "z", "ts": {START}, "rating": 5, "Colour": "red"}}\n'
    events = str(write_text(tmp_path, "log.jsonl", "".join(lines) + "\n" + late))
    items = [f'{{"item": "i{n % 9}", "title": "T{n}"}}\n' for n in range(1_200)]
    late = '{"item": "z", "title": "Z", "brand": "Acme"}\n'
    catalogue = {"file": str(write_text(tmp_path, "items.jsonl", "".join(items) + late))}
    done = prepared(tmp_path, catalogue, files=events, min_rating=3)
    assert sequences(done) == {"u": ["z"]}
    assert pyarrow.parquet.read_table(done.catalogue)["brand"].to_pylist() == ["Acme"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_that_differ_in_case_alone_are_refused(tmp_path: Path, kind: str) -> None:
    columns = {"user": ["u"], "item": ["a"], "Item": ["b"], "time": ["2020-01-01"]}
    file = tmp_path / f"e.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table(columns), file)
    elif kind == "jsonl":
        file.write_text(json.dumps({name: values[0] for name, values in columns.items()}))
    else:
        file.write_text("user,item,Item,time\nu,a,b,2020-01-01\n")
    with pytest.raises(UserError, match=rf"e\.{kind}: the columns 'item' and 'Item' differ in"):
        prepared(tmp_path, files=str(file))


def test_ratings_with_a_decimal_comma_are_not_said_to_be_low(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"u;{item};{START + n};{rating}\n" for n, (item, rating) in enumerate(RATED.items())]
    file = write_text(tmp_path, "e.csv", "user;item;ts;rating\n" + "".join(lines))
    done = prepared(tmp_path, files=str(file), min_rating=4)
    assert sequences(done) == {"u": ["high", "blank"]}
    assert dropped(done) == {"input": 2, "events.min_rating": 2}
    assert "2 of 6 events left out: rating that is no number" in capsys.readouterr().err
    assert set(dropped(prepared(tmp_path, files=str(file)))) == set(), "no rating is asked for"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Pens&notes", "Pens&notes"),
        ("Q&amp;A &#38; caf&eacute;", "Q&A & café"),
        ("Fish&copychips &notit; &AMP;", "Fish&copychips &notit; &"),
        ("&lt;b&gt;Red&lt;/b&gt; &amp;amp; blue", "Red & blue"),
    ],
)
def test_what_is_no_entity_stays(text: str, plain: str) -> None:
    assert clean(text) == plain


def test_title_rules(tmp_path: Path) -> None:
    items = "id,title\na,one two three\nb,<b>bold</b>\nc,fine\n"
    catalogue = {
        "file": str(write_text(tmp_path, "i.csv", items)),
        "html": "drop",
        "max_title_words": 2,
    }
    text = "user,item,time\n" + "".join(
        f"u,{item},150000000{place}\n" for place, item in enumerate("abc")
    )
    done = prepared(tmp_path, catalogue, files=str(write_text(tmp_path, "e.csv", text)))
    assert sequences(done) == {"u": ["c"]}
    assert dropped(done) == {"catalogue.html": 1, "catalogue.max_title_words": 1}


def test_a_user_of_very_many_events_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MANY_EVENTS", 50)
    events = [("bot", f"i{place % 7}", START + place, 5.0) for place in range(51)]
    done = prepared(tmp_path, files=str(write_events(tmp_path, events)))
    assert done.summary["warnings"] == [
        "user bot has 51 events; is it a person? events.latest keeps the latest ones"
    ]


def test_a_user_may_be_longer_than_a_piece_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine hands out few rows at a time; users that span pieces stay whole, in
    both layouts.
    """
    from sidtune.events import engine

    events = [(f"u{place % 3}", f"i{place % 7}", START + place, 5.0) for place in range(6_000)]
    path = str(write_events(tmp_path, events))
    expected = {
        f"u{user}": [f"i{place % 7}" for place in range(user, 6_000, 3)] for user in range(3)
    }
    monkeypatch.setattr(engine, "ROWS_AT_ONCE", 100)
    assert sequences(prepared(tmp_path, files=path)) == expected
    done = prepared(tmp_path, files=path, split="global_time", history=3)
    assert done.summary["rows"] == {"train": 4797, "valid": 600, "test": 600}


def test_an_example_of_unreadable_times_is_shown(tmp_path: Path) -> None:
    path = str(write_text(tmp_path, "e.tsv", "user\titem\ttime\nu\ta\t\nu\tb\t 1 Jan 2018\n"))
    with pytest.raises(UserError, match=r"not readable, such as '1 Jan 2018'\)"):
        prepared(tmp_path, files=path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0),
        ("2020-02-29 23:59:59", 1_583_020_799),
        ("2020-02-29T23:59:59.5Z", 1_583_020_799.5),
        ("2020-3-1 1:05", 1_583_024_700),
        ("2000-01-01T00:00:00+05:30", 946_665_000),
        ("1999-12-31 19:00:00-0500", 946_684_800),
        ("2020-01-01 00:00:00 UTC", 1_577_836_800),
        ("2020-01-01 00:00:00 GMT", 1_577_836_800),
        ("2020-01-01 12:05 AM", 1_577_837_100),
        ("1/13/2020 12:05:09 p.m.", 1_578_917_109),
        ("13.1.2020 07:05pm +01:00", 1_578_938_700),
        ("2020-01-01 13:05 PM", None),
        ("2020-01-01 0:05 AM", None),
        ("1500000000.25", 1_500_000_000.25),
        ("1.5e9", 1_500_000_000),
        ("1500000000123", 1_500_000_000.123),
        ("1500000000123456", 1_500_000_000.123456),
        ("1500000000123456789", 1_500_000_000.123456),
        ("2019-02-29", None),
        ("2020-13-01", None),
        ("2020-01-01 24:00:00", None),
        ("09 13, 2018", None),
    ],
)
def test_times_as_text(tmp_path: Path, text: str, seconds: float | None) -> None:
    path = str(write_text(tmp_path, "e.tsv", f"user\titem\ttime\nu\ta\t{text}\n"))
    if seconds is None:
        with pytest.raises(UserError, match="left no event"):
            prepared(tmp_path, files=path)
        return
    table = pyarrow.parquet.read_table(
        prepared(tmp_path, files=path).folder / "interactions.parquet"
    )
    assert table["times"].combine_chunks().flatten().cast(pa.int64()).to_pylist() == [
        round(seconds * 1_000_000)
    ]


@pytest.mark.parametrize(
    "kind", ["timestamp[ns]", "timestamp[ms]", "date32", "timestamp[us, tz=UTC]", "zone"]
)
def test_times_of_any_type(tmp_path: Path, kind: str) -> None:
    seconds = 1_577_836_800
    types = {"date32": pa.date32(), "timestamp[us, tz=UTC]": pa.timestamp("us", "UTC")}
    types |= {"timestamp[ns]": pa.timestamp("ns"), "timestamp[ms]": pa.timestamp("ms")}
    times = pa.array([seconds], pa.timestamp("s", "UTC")).cast(
        types.get(kind, pa.timestamp("us", "Asia/Tokyo"))
    )
    pyarrow.parquet.write_table(
        pa.table({"user": ["u"], "item": ["a"], "time": times}), tmp_path / "e.parquet"
    )
    done = prepared(tmp_path, files=str(tmp_path / "e.parquet"))
    found = pyarrow.parquet.read_table(done.folder / "interactions.parquet")["times"].to_pylist()[
        0
    ][0]
    assert found.timestamp() == seconds


@pytest.mark.parametrize("name", ["no/such.csv", "*.nothing", "events.xlsx"])
def test_files_that_are_not_there_or_of_no_known_kind(tmp_path: Path, name: str) -> None:
    write_text(tmp_path, "events.xlsx", "x")
    with pytest.raises(UserError, match=r"events\.files"):
        prepared(tmp_path, files=str(tmp_path / name))


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    path = write_events(tmp_path, [("u", "a", START, 5.0)])
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"PAR1" + b"\0" * 40 + b"PAR1",
        whole[:20] + b"\xff" * 30 + whole[50:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError):
            prepared(tmp_path, files=str(path))
        assert list((tmp_path / "run" / "prepared").iterdir()) == []


@pytest.mark.parametrize(("engine", "extra"), [("duckdb", "prepare"), ("{spark: local}", "spark")])
def test_what_is_missing_says_how_to_install_it(tmp_path: Path, engine: str, extra: str) -> None:
    """In a process that finds neither package, as without the extra."""
    config = write_text(
        tmp_path,
        "shop.yaml",
        f"output_dir: {tmp_path}/run\nevents: {{files: x.csv, engine: {engine}}}\n",
    )
    code = (
        "import importlib.util as u; real = u.find_spec\nu.find_spec = lambda name, *a: None if"
        " name in ('ibis', 'duckdb', 'pyspark') else real(name, *a)\nimport sys; sys.argv ="
        " ['sidtune', 'prepare', sys.argv[1]]\nfrom sidtune.commands.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(config)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 2
    assert f"not installed\nRun: pip install 'sidtune[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_importing_sidtune_needs_no_extra() -> None:
    names = ("ibis", "duckdb", "pyspark")
    code = (
        f"import sys, sidtune.commands.main, sidtune.config.events; print([n for n in {names} if n"
        " in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_log_of_days_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for a_day, warned in ((3, True), (1, False)):
        events = "".join(f"u,{n},2020-01-{1 + n // a_day:02}\n" for n in range(9))
        path = write_text(tmp_path, f"{a_day}.csv", f"user,item,time\n{events}")
        prepared(tmp_path, files=str(path))
        said = "9 of 9 events have the time of another event" in capsys.readouterr().err
        assert said == warned
    # A column of positions orders them, where it tells them apart.
    for positions, tied in ((range(9), 0), ([1, 1, 2, 3, 4, 5, 6, 7, 8], 2)):
        events = "".join(f"u,{n},2020-01-01,{place}\n" for n, place in enumerate(positions))
        path = write_text(tmp_path, "placed.csv", f"user,item,time,position\n{events}")
        done = prepared(tmp_path, files=str(path))
        assert done.summary["result"]["events_ordered_by_item"] == tied
        assert "the time of another event" not in capsys.readouterr().err
