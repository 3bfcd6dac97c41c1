"""What the files of a folder are recognised as, from small samples of each kind."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.made_events import START, write_events, write_text
from tests.tiny_data import write_shop

from sidtune.base.errors import UserError
from sidtune.events.files import matching_files
from sidtune.setup import look as room
from sidtune.setup.choose import (
    Chosen,
    choose,
    missing_columns,
    untitled,
    with_catalogue,
    with_events,
)
from sidtune.setup.look import look, look_at

REVIEW_2018 = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": START}
REVIEW_2023 = {"user_id": "A1", "parent_asin": "B1", "rating": 5.0, "timestamp": START * 1000}
SAMPLES = {
    "shop.inter": ("user_id:token\titem_id:token\ttimestamp:float\nu\t1\t3\n", "events", "recbole"),
    "shop.item": ("item_id:token\ttitle:token_seq\n1\tA tent\n", "catalogue", "recbole"),
    "ratings.csv": ("userId,movieId,rating,timestamp\n1,2,4.0,9\n", "events", "movielens"),
    "movies.csv": ("movieId,title,genres\n2,Heat,Crime\n", "catalogue", "movielens"),
    "ratings.dat": ("1::2::4::964982703\n", "events", "movielens"),
    "u.data": ("1\t2\t4\t964982703\n", "events", "movielens"),
    "reviews.json": (json.dumps(REVIEW_2018) + "\n", "events", "amazon"),
    "Beauty.jsonl": (json.dumps(REVIEW_2023) + "\n", "events", "amazon"),
    "old.json": (str({"reviewerID": "A", "asin": "B", "reviewText": "Don't"}), "events", "amazon"),
    "meta.jsonl": ('{"asin": "B1", "title": "A tent"}\n', "catalogue", "amazon"),
    "Shop.txt": ("1 7 8 9\n2 7 9\n", "events", "sequences"),
    "Shop_item2attributes.json": ('{"7": [1, 2], "8": []}', "catalogue", "sequences"),
    "shop.inter.json": ('{"u1": [7, 8, 9, 7], "u2": ["7", "9"]}', "interactions", None),
    "shop.index.json": ('{"7": ["<a_1>", "<b_2>"], "8": ["<a_1>", "<b_2>"]}', "index", None),
    "codes.index.json": ('{"7": [1, 2], "8": [1, 3]}', "index", None),
    "shop.item.json": ('{"7": {"title": "A tent"}}', "items", None),
    "train.csv": ("user_id,history_item_id,item_id\nu,[1],2\n", "train", None),
    "my_valid.csv": ("user_id,history,item_id\nu,[1],2\n", "valid", None),
    "test.jsonl": ('{"user_id": "u", "history": [1], "item_id": 2}\n', "test", None),
    "log.csv": ("customer,sku,ts\nu,1,2020-01-01\n", "events", None),
    "log.tsv.gz": ("user_id\titem_id\ttime\nu\t1\t2020-01-01\n", "events", None),
    "items.csv": ("sku,name,brand\n1,A tent,Acme\n", "catalogue", None),
    "购买.csv": ("用户ID,商品ID,时间\nu,1,2020/1/1 8:05\n", "events", None),
    "商品.csv": ("商品ID,商品名称\n1,帐篷\n", "catalogue", None),
    "semicolons.csv": ("customer;sku;ts\nu;1;2020-01-01\n", "events", None),
    "tabs.csv": ("sku\tname, brand\n1\tA tent, Acme\n", None, None),
    "other.csv": ("colour,shape\nred,round\n", None, None),
    "notes.md": ("Some notes.\n", None, None),
    "info.txt": ("<a_1><b_2>\tA tent\t7\n", None, None),
    "broken.json": ("{", None, None),
    "empty_list.index.json": ('{"7": []}', None, None),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_is_recognised(tmp_path: Path, name: str) -> None:
    text, role, kind = SAMPLES[name]
    file = write_text(tmp_path, name, text)
    if name.endswith(".gz"):
        file.write_bytes(gzip.compress(text.encode()))
    found = look_at(file)
    assert (found.role, found.format) == (role, kind)
    assert bool(found.rows) or role is None


def test_rows_and_targets_are_counted(tmp_path: Path) -> None:
    write_events(tmp_path, [("u", "i", START, 1.0)] * 7)
    assert look_at(tmp_path / "events.parquet").rows == 7
    histories = write_text(tmp_path, "a.inter.json", json.dumps({"u": list(range(9)), "v": [1]}))
    assert look_at(histories).rows == 6, "one item opens the history and two are held out"
    shared = write_text(tmp_path, "a.index.json", SAMPLES["shop.index.json"][0])
    assert look_at(shared).shared == 1
    long = write_text(tmp_path, "l.csv", "user,item,time\n" + "u1,i1,2020-01-01\n" * 300_000)
    assert look_at(long).rows == pytest.approx(300_000, rel=0.01)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        *((name, 1) for name in ("ratings.csv", "shop.inter", "shop.item", "log.tsv.gz")),
        *((name, 1) for name in ("ratings.dat", "u.data", "reviews.json", "test.jsonl")),
        *((name, 1) for name in ("train.csv", "semicolons.csv", "购买.csv")),
        ("Shop.txt", 5),
    ],
)
@pytest.mark.parametrize("ended", [True, False])
def test_a_header_is_no_row(tmp_path: Path, name: str, rows: int, ended: bool) -> None:
    text = SAMPLES[name][0].rstrip("\n") + "\n" * ended
    file = write_text(tmp_path, name, text)
    if name.endswith(".gz"):
        file.write_bytes(gzip.compress(text.encode()))
    assert look_at(file).rows == rows


def test_files_of_one_table_become_a_pattern(tmp_path: Path) -> None:
    parts = tmp_path / "events"
    for number in range(3):
        write_events(parts, [("u", "i", START, 1.0)] * 2, f"part-{number}.parquet")
    (events,) = look(tmp_path)
    assert events.path == parts / "*.parquet"
    assert events.rows == 6
    pyarrow.parquet.write_table(pa.table({"sku": ["1"], "name": ["A"]}), parts / "items.parquet")
    events, items = sorted(look(tmp_path), key=lambda table: table.rows, reverse=True)
    assert events.path.name == "part-*.parquet", "the short pattern would take the items too"
    assert items.role == "catalogue"
    pyarrow.parquet.write_table(pa.table({"sku": ["1"], "name": ["A"]}), parts / "part-x.parquet")
    chosen = choose(look(tmp_path))
    assert chosen.tables["events"].path.name == "part-2.parquet", "no pattern fits"
    assert {"part-0.parquet", "part-1.parquet"} <= {one.path.name for one in chosen.others}, (
        "they are told"
    )


def test_numbered_parts_may_lack_columns_of_others(tmp_path: Path) -> None:
    columns = {"user_id": ["u"], "sku": ["1"], "ts": [START]}
    # One more column; numbers for ids; another order.
    tables = [
        columns,
        {**columns, "channel": ["web"]},
        {**columns, "sku": [1]},
        dict(reversed(columns.items())),
    ]
    for number, table in enumerate(tables):
        pyarrow.parquet.write_table(pa.table(table), tmp_path / f"orders-{number}.parquet")
        lines = json.dumps({name: values[0] for name, values in table.items()}) + "\n"
        write_text(tmp_path / "json", f"2024-0{number + 1}.jsonl", lines)
    assert {(table.path.name, table.rows) for table in look(tmp_path)} == {
        ("*.parquet", 4),
        ("*.jsonl", 4),
    }
    # Another shop: its items stand in another column, or its name is another.
    pyarrow.parquet.write_table(
        pa.table({**columns, "item_id": ["1"]}), tmp_path / "orders-9.parquet"
    )
    write_text(tmp_path / "json", "toys.jsonl", json.dumps({**columns, "colour": "red"}) + "\n")
    names = {table.path.name for table in look(tmp_path)}
    assert {"orders-9.parquet", "toys.jsonl", "2024-0*.jsonl"} <= names


def test_partitions_of_a_table_become_a_pattern(tmp_path: Path) -> None:
    for day in ("01", "02", "11"):
        write_events(tmp_path / f"date=2020-01-{day}", [("u", "i", START, 1.0)], "part-0.parquet")
    (events,) = look(tmp_path)
    assert (events.path, events.rows) == (tmp_path / "*" / "*.parquet", 3)
    assert len(matching_files(events.path, "events.files")) == 3
    write_events(tmp_path / "date=2020-01-11", [("u", "i", START, 1.0)], "part-1.parquet")
    write_text(tmp_path / "items", "items.csv", SAMPLES["items.csv"][0])
    names = {str(table.path.relative_to(tmp_path)): table.rows for table in look(tmp_path)}
    assert names == {"*/*.parquet": 4, "items/items.csv": 1}
    items = pa.table({"sku": ["1"], "name": ["A"]})
    pyarrow.parquet.write_table(items, tmp_path / "items" / "part-0.parquet")
    assert choose(look(tmp_path)).tables["events"].path == tmp_path / "date=2020-01-*" / "*.parquet"
    for month in ("1", "2"):
        write_events(tmp_path / "log" / "year=2020" / f"month={month}", [("u", "i", START, 1.0)])
        write_events(tmp_path / f"shop-{month}", [("u", "i", START, 1.0)])
    paths = {str(table.path.relative_to(tmp_path)) for table in look(tmp_path)}
    assert paths >= {f"shop-{shop}/events.parquet" for shop in "12"}, "shops, not partitions"
    assert "log/year=2020/*/*.parquet" in paths


def test_more_files_than_can_be_looked_at_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_text(tmp_path, f"part-{number}.csv", SAMPLES["log.csv"][0])
    monkeypatch.setattr(room, "MOST_FILES", 2)
    with pytest.raises(UserError, match="holds more than 2 files") as refusal:
        look(tmp_path)
    assert "pattern" in refusal.value.hint
    monkeypatch.setattr(room, "MOST_FILES", 3)
    assert [table.path.name for table in look(tmp_path)] == ["*.csv"]


def test_rows_are_chosen_before_events(tmp_path: Path) -> None:
    write_shop(tmp_path)
    write_events(tmp_path, [("u", "1", START, 1.0)])
    chosen = choose(look(tmp_path))
    assert list(chosen.tables) == ["train", "valid", "test", "items", "index"]
    assert chosen.tables["index"].shared == 1
    (tmp_path / "valid.csv").unlink()
    with pytest.raises(UserError, match="no file of validation rows"):
        choose(look(tmp_path))
    write_shop(tmp_path)
    for name in ("shop.item.json", "shop.index.json"):
        (tmp_path / name).unlink()
    # Their items get SIDs by co-occurrence.
    assert list(choose(look(tmp_path)).tables) == ["train", "valid", "test"]


def test_minionerec_names_splits_by_folders_and_may_have_two_shops(tmp_path: Path) -> None:
    for shop, rows in (("Small_Shop", 1), ("Large_Shop", 3)):
        for split in ("train", "valid", "test"):
            text = "user_id,history_item_id,item_id\n" + "u,[1],2\n" * rows
            write_text(tmp_path / "data" / split, f"{shop}_5_2016.csv", text)
        # The larger index belongs to the smaller shop.
        ids = {str(n): ["<a_1>", f"<b_{n}>"] for n in range(9 - rows)}
        write_text(tmp_path / "data" / "index", f"{shop}.index.json", json.dumps(ids))
    chosen = choose(look(tmp_path / "data"))
    assert {role: table.path.name for role, table in chosen.tables.items()} == {
        **dict.fromkeys(("train", "valid", "test"), "Large_Shop_5_2016.csv"),
        "index": "Large_Shop.index.json",
    }
    assert {table.path.parent.name for table in chosen.tables.values()} == {
        *("train", "valid", "test", "index")
    }
    assert {table.path.name.split("_")[0] for table in chosen.others} == {"Small"}


def test_s3_rec_has_attributes_and_drawn_items_beside_the_events(tmp_path: Path) -> None:
    write_text(tmp_path, "Shop.txt", "1 7 8 9\n2 7 9\n")
    write_text(tmp_path, "Shop_sample.txt", "1 5 6 7 8 9 10\n2 5 6 7 8 9 10\n")
    write_text(tmp_path, "Shop_item2attributes.json", '{"7": [1, 2], "8": [], "9": [2]}')
    chosen = choose(look(tmp_path))
    assert {role: table.path.name for role, table in chosen.tables.items()} == {
        "events": "Shop.txt",
        "catalogue": "Shop_item2attributes.json",
    }
    assert chosen.tables["events"].rows == 5


def test_a_table_that_lacks_one_column_says_which(tmp_path: Path) -> None:
    write_text(tmp_path, "log.csv", "user_id,item_id\nu,1\n")
    with pytest.raises(UserError, match=r"log\.csv \(a table without a column of times"):
        choose(look(tmp_path))


def test_a_table_that_lacks_two_columns_names_these_alone(tmp_path: Path) -> None:
    file = write_text(tmp_path, "plays.csv", "profile,track_id,at\nu,1,2020-01-01\n")
    assert look_at(file).note == "a table; no columns of users and times are known"
    for_nothing = write_text(tmp_path, "other.csv", SAMPLES["other.csv"][0])
    assert not look_at(for_nothing).note


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = write_text(tmp_path / "of", "log.csv", SAMPLES["log.csv"][0])
    with pytest.raises(UserError, match=r"log\.csv is a file") as told:
        look(file)
    assert f"sidtune init {tmp_path / 'of'}" in told.value.hint


def test_nothing_to_train_on_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        look(tmp_path / "nosuch")
    with pytest.raises(UserError, match="has no file"):
        look(tmp_path)
    write_text(tmp_path / "a" / "b", "log.csv", SAMPLES["log.csv"][0])
    with pytest.raises(UserError, match="has no file") as refusal:
        look(tmp_path)
    assert str(tmp_path / "a" / "b") in refusal.value.hint
    write_text(tmp_path, "other.csv", SAMPLES["other.csv"][0])
    with pytest.raises(UserError, match=r"other\.csv \(colour, shape\)") as refusal:
        choose(look(tmp_path))
    assert "--events FILE --user COLUMN" in refusal.value.hint


def test_events_whose_columns_have_other_names(tmp_path: Path) -> None:
    file = write_text(tmp_path, "log.csv", "who,sku,on\nu,1,2020-01-01\n")
    items = write_text(tmp_path, "items.csv", SAMPLES["items.csv"][0])
    chosen = with_events(file, look(tmp_path))
    assert missing_columns(chosen) == ["user", "time"]
    assert chosen.tables["catalogue"].path == items
    with pytest.raises(UserError, match="not used"):
        with_events(write_text(tmp_path, "notes.md", "x"), [])


def test_a_table_with_the_events_column_of_items_is_the_catalogue(tmp_path: Path) -> None:
    file = write_text(tmp_path, "log.csv", "user_id,anime,ts\nu,1,2020-01-01\n")
    write_text(tmp_path, "films.csv", "film,title\n1,Heat\n")
    items = write_text(tmp_path, "anime.csv", "Anime,name\n1,Akira\n")
    chosen = replace(with_events(file, look(tmp_path)), columns={"item": "anime"})
    assert "catalogue" not in chosen
    found = with_catalogue(chosen, look(tmp_path))
    assert found.tables["catalogue"].path == items
    assert found.tables["catalogue"].role == "catalogue"
    items.unlink()
    assert with_catalogue(chosen, look(tmp_path)) is chosen


@pytest.mark.parametrize(
    ("title", "used"), [("Name", False), ("title", False), ("product_title", True)]
)
@pytest.mark.parametrize("item", ["anime", "sku"])
def test_events_are_their_own_catalogue_where_a_title_is_that_of_the_item(
    tmp_path: Path, title: str, used: bool, item: str
) -> None:
    rows = "#1,a@b.c,1,2020-01-01\n#1,a@b.c,2,2020-01-01\n"
    write_text(tmp_path, "orders.csv", f"{title},email,{item},ts\n{rows}")
    file = tmp_path / ".." / tmp_path.name / "*ders.csv"

    def chosen() -> Chosen:
        columns = {"user": "email", "item": item}
        return with_catalogue(
            replace(with_events(file, look(tmp_path)), columns=columns), look(tmp_path)
        )

    assert ("catalogue" in chosen()) is used
    items = write_text(tmp_path, "products.csv", f"{item},name\n1,Akira\n")
    assert chosen().tables["catalogue"].path == items


def test_a_catalogue_whose_titles_are_not_known_is_found(tmp_path: Path) -> None:
    log = write_text(tmp_path, "log.csv", "Kunde,Artikel,ts\nu,1,2020-01-01\n")
    write_text(tmp_path, "bought.csv", "user_id,Artikel\nu,1\n" * 9)
    items = write_text(tmp_path, "items.csv", "Artikel,Bezeichnung\n1,Becher\n")
    tables = look(tmp_path)
    chosen = replace(with_events(log, tables), columns={"user": "Kunde", "item": "Artikel"})
    assert with_catalogue(chosen, tables) is chosen
    found = untitled(chosen, tables)
    assert found
    assert found.path == items
    write_text(tmp_path, "items.csv", "Artikel,Name\n1,Becher\n")
    tables = look(tmp_path)
    assert untitled(with_catalogue(chosen, tables), tables) is None


def test_events_are_named_by_a_pattern(tmp_path: Path) -> None:
    for day in ("01", "02"):
        write_text(tmp_path, f"clicks-{day}.csv", "session,news_id,ts\n" + "s,n,2020-01-01\n" * 3)
    events = with_events(tmp_path / "clicks-*.csv", look(tmp_path)).tables["events"]
    assert (events.path, events.rows) == (tmp_path / "clicks-*.csv", 6)
    with pytest.raises(UserError, match="no file matches"):
        with_events(tmp_path / "views-*.csv", [])
