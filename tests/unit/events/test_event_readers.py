"""Public data sets as they are downloaded, a tiny sample of each."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow.parquet
import pytest

pytest.importorskip("ibis", reason="pip install 'sidtune[prepare]'")
pytest.importorskip("duckdb", reason="pip install 'sidtune[prepare]'")

from tests.made_events import prepared, rows, sequences, write_text

from sidtune.base.errors import UserError
from sidtune.events.minionerec import write_minionerec
from sidtune.events.prepare import Prepared
from sidtune.events.readers import FORMATS

REVIEW = {"reviewText": "Don't <b>!", "style": {"Size:": " XL"}, "verified": True, "vote": None}


def titles(done: Prepared) -> dict[str, str]:
    table = pyarrow.parquet.read_table(done.folder / "catalogue.parquet").to_pydict()
    return dict(zip(table["item_id"], table["title"], strict=True))


def column(done: Prepared, name: str) -> list[str]:
    found: list[str] = pyarrow.parquet.read_table(done.folder / "catalogue.parquet")[
        name
    ].to_pylist()
    return found


def test_recbole(tmp_path: Path) -> None:
    inter = write_text(
        tmp_path,
        "ml.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "u1\t7\t3\t881250949.0\nu1\t8\t1\t8.81250948E8\nu2\t7\t2\t881250950\n",
    )
    item = write_text(
        tmp_path,
        "ml.item",
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\n7\tToy Story\tAnimation"
        " Comedy\n8\tGoldenEye\tAction\n",
    )
    done = prepared(
        tmp_path, {"file": str(item), "format": "recbole"}, files=str(inter), format="recbole"
    )
    assert sequences(done) == {"u1": ["8", "7"], "u2": ["7"]}
    assert titles(done) == {"7": "Toy Story", "8": "GoldenEye"}
    assert column(done, "class") == ["Animation Comedy", "Action"]
    with pytest.raises(UserError, match="line 2: 3 fields, and the header has 2"):
        list(
            FORMATS["recbole"].events(
                write_text(tmp_path, "b.inter", "u:token\ti:token\na\tb\tc\n")
            )
        )
    with pytest.raises(UserError, match="'i' in the header has no type"):
        list(FORMATS["recbole"].events(write_text(tmp_path, "b.inter", "u:token\ti\na\tb\n")))


@pytest.mark.parametrize("layout", ["csv", "dat", "data"])
def test_movielens(tmp_path: Path, layout: str) -> None:
    if layout == "csv":
        events = "userId,movieId,rating,timestamp\n1,2,4.0,964982703\n1,3,3.5,964982700\n"
        items = (
            'movieId,title,genres\n2,"Postino, Il (1994)",Comedy|Romance\n3,Heat,(no genres'
            " listed)\n"
        )
        names = ("ratings.csv", "movies.csv")
    elif layout == "dat":
        events = "1::2::4::964982703\n1::3::3::964982700\n"
        items = "2::Postino, Il (1994)::Comedy|Romance\n3::Heat::(no genres listed)\n"
        names = ("ratings.dat", "movies.dat")
    else:
        events = "1\t2\t4\t964982703\n1\t3\t3\t964982700\n"
        marks = {"2": {5, 14}, "3": set()}
        films = {"2": "Postino, Il (1994)", "3": "Heat"}
        items = "".join(
            "|".join(
                [
                    at,
                    films[at],
                    "01-Jan-1994",
                    "",
                    "http://x",
                    *(str(int(n in marks[at])) for n in range(19)),
                ]
            )
            + "\n"
            for at in films
        )
        names = ("u.data", "u.item")
    paths = [
        write_text(tmp_path, name, text) for name, text in zip(names, (events, items), strict=True)
    ]
    done = prepared(
        tmp_path,
        {"file": str(paths[1]), "format": "movielens"},
        files=str(paths[0]),
        format="movielens",
    )
    assert sequences(done) == {"1": ["3", "2"]}
    assert titles(done) == {"2": "Postino, Il (1994)", "3": "Heat"}
    assert column(done, "genres")[0] == "Comedy, Romance"


def test_movielens_of_a_folder_is_read_by_its_names_and_headers(tmp_path: Path) -> None:
    folder = tmp_path / "ml"
    write_text(folder, "ratings.csv", "movieId,userId,x,timestamp,rating\n2,1,?,964982703,4.0\n")
    write_text(folder, "movies.csv", "title,genres,movieId\nHeat,Crime|Drama,2\n")
    tags = write_text(folder, "tags.csv", "userId,movieId,tag,timestamp\n1,3,dark,964982703\n")
    write_text(folder, "README.txt", "Of GroupLens.\n")
    kind = {"format": "movielens"}
    done = prepared(tmp_path, {"file": str(folder), **kind}, files=str(folder), **kind)
    assert sequences(done) == {"1": ["2"]}
    assert (titles(done), column(done, "genres")) == ({"2": "Heat"}, ["Crime, Drama"])
    with pytest.raises(UserError, match=r"tags\.csv: no column of MovieLens is the rating; found"):
        prepared(tmp_path, files=str(tags), **kind)


def test_files_of_a_format_with_other_columns_are_refused(tmp_path: Path) -> None:
    inter = "user_id:token\titem_id:token\ttimestamp:float\nu\t7\t881250949\n"
    write_text(tmp_path / "ml", "ml.inter", inter)
    write_text(tmp_path / "ml", "ml.item", "item_id:token\ttitle:token_seq\n7\tHeat\n")
    kind = {"format": "recbole"}
    keys = {"files": str(tmp_path / "ml"), **kind}
    done = prepared(tmp_path, {"file": str(tmp_path / "ml"), **kind}, **keys)
    assert (sequences(done), titles(done)) == ({"u": ["7"]}, {"7": "Heat"})
    write_text(tmp_path / "ml", "more.inter", "user_id:token\titem_id:token\nu\t8\n")
    with pytest.raises(UserError, match=r"more\.inter has the columns user_id, item_id, and"):
        prepared(tmp_path, **keys)


def test_a_user_with_lists_in_two_files_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "log", "a.txt", "1 7 8\n2 7\n")
    write_text(tmp_path / "log", "b.txt", "3 9\n")
    keys = {"files": str(tmp_path / "log"), "format": "sequences"}
    assert sequences(prepared(tmp_path, **keys)) == {"1": ["7", "8"], "2": ["7"], "3": ["9"]}
    write_text(tmp_path / "log", "c.txt", "2 9\n")
    with pytest.raises(UserError, match=r"user 2 stands in .*a\.txt and in .*c\.txt"):
        prepared(tmp_path, **keys)


def test_attributes_without_names_are_words_of_a_title(tmp_path: Path) -> None:
    path = write_text(tmp_path, "s_item2attributes.json", '{"7": [1, 12], "8": []}')
    (table,) = FORMATS["sequences"].items(path)
    assert table.to_pydict() == {"id": ["7", "8"], "title": ["a1 a12", "item 8"]}
    with pytest.raises(UserError, match="item 7: expected an object, or a list of attributes"):
        list(FORMATS["sequences"].items(write_text(tmp_path, "b.json", '{"7": "red"}')))


def test_lines_of_movielens_are_counted_with_empty_ones(tmp_path: Path) -> None:
    ratings = write_text(tmp_path, "ratings.dat", "1::2::5::1500000000\n\n1::2\n")
    with pytest.raises(UserError, match="line 3: expected 4 fields, found 2"):
        list(FORMATS["movielens"].events(ratings))


def test_movielens_in_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes("1::Cité::Drama\n".encode("latin-1"))
    assert next(FORMATS["movielens"].items(path))["title"].to_pylist() == ["Cité"]
    with pytest.raises(UserError, match="line 1: expected 4 fields, found 3"):
        list(FORMATS["movielens"].events(path))


@pytest.mark.parametrize("year", [2014, 2018, 2023])
def test_amazon(tmp_path: Path, year: int) -> None:
    if year == 2023:
        reviews = [
            {
                "user_id": u,
                "asin": "v" + i,
                "parent_asin": i,
                "rating": 5.0,
                "timestamp": t * 1000 + 123,
            }
            for u, i, t in LOG
        ]
        metas = [
            {
                "parent_asin": i,
                "title": t,
                "store": "Acme",
                "categories": ["A", "B"],
                "features": ["f"],
            }
            for i, t in META
        ]
    else:
        reviews = [
            {"reviewerID": u, "asin": i, "overall": 5.0, "unixReviewTime": t, **REVIEW}
            for u, i, t in LOG
        ]
        kinds = [["A", "B"]] if year == 2014 else ["A", "B"]
        key = "categories" if year == 2014 else "category"
        metas = [
            {"asin": i, "title": t, "brand": "Acme", key: kinds, "description": "d"}
            for i, t in META
        ]
    write = json.dumps if year != 2014 else repr
    (tmp_path / "reviews.json.gz").write_bytes(
        gzip.compress("\n".join(map(write, reviews)).encode())
    )
    (tmp_path / "meta.json.gz").write_bytes(gzip.compress("\n".join(map(write, metas)).encode()))
    done = prepared(
        tmp_path,
        {"file": str(tmp_path / "meta.json.gz"), "format": "amazon"},
        files=str(tmp_path / "reviews.json.gz"),
        format="amazon",
    )
    assert sequences(done) == {"u": ["B2", "B1"], "v": ["B1"]}
    assert titles(done) == {"B1": "It's a Mug", "B2": 'Tent, 2"'}
    assert (column(done, "categories"), column(done, "brand")) == (["A, B"] * 2, ["Acme"] * 2)


LOG = [("u", "B1", 1_400_000_001), ("u", "B2", 1_400_000_000), ("v", "B1", 1_400_000_002)]
META = [("B1", "It's a Mug"), ("B2", 'Tent, 2"')]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{'asin': __import__('os').getcwd()}", "neither JSON nor a Python literal"),
        ("{'asin': " + "(" * 300 + ")" * 300 + "}", "neither JSON nor a Python literal"),
        ("{'a': '" + "x" * (1 << 20) + "'}", "a Python literal of"),
        ('{"asin": "1"', "not valid JSON"),
        ("[1]", "expected a record"),
        ('{"asin": "\\ud800"}', "half of a surrogate pair"),
        ("__import__('os').getcwd()", "not valid JSON"),
    ],
)
def test_lines_that_are_no_records(tmp_path: Path, line: str, match: str) -> None:
    path = write_text(tmp_path, "r.json", '{"asin": "1"}\n' + line + "\n")
    with pytest.raises(UserError, match=match) as error:
        list(FORMATS["amazon"].events(path))
    assert "line 2" in error.value.message


def test_sequences_of_lc_rec_and_s3_rec(tmp_path: Path) -> None:
    text = write_text(tmp_path, "data.txt", "1 7 8 7\n2 9\n")
    done = prepared(tmp_path, files=str(text), format="sequences", k_core={"user": 2, "item": 1})
    assert sequences(done) == {"1": ["7", "8", "7"]}
    objects = write_text(tmp_path, "shop.inter.json", json.dumps({"1": [7, 8, 7], "2": ["9"]}))
    items = write_text(
        tmp_path,
        "shop.item.json",
        json.dumps({"7": {"title": "Mug"}, "8": {"title": "Tent", "x": ["y"]}}),
    )
    done = prepared(tmp_path, {"file": str(items)}, files=str(objects), format="sequences")
    assert sequences(done) == {"1": ["7", "8", "7"]}
    assert (titles(done), column(done, "x")) == ({"7": "Mug", "8": "Tent"}, ["", "y"])
    for bad, match in (("1 7\n1 8\n", "user 1 stands twice"), ("1\n", "user 1 has no items")):
        with pytest.raises(UserError, match=match):
            list(FORMATS["sequences"].events(write_text(tmp_path, "b.txt", bad)))


def test_minionerecs_layout(tmp_path: Path) -> None:
    log = "user,item,time\n" + "".join(
        f"u,{item},150000000{place}\n" for place, item in enumerate([3, 4, 3, 5])
    )
    items = write_text(tmp_path, "i.csv", "id,title,brand\n3,It's a Mug,Acme\n4,Tent,\n5,Sock,\n")
    index = write_text(
        tmp_path,
        "i.index.json",
        json.dumps({"3.0": ["<a_1>", "<b_2>"], "4": ["<a_1>"], "5": ["<a_3>"]}),
    )
    done = prepared(tmp_path, {"file": str(items)}, files=str(write_text(tmp_path, "e.csv", log)))
    write_minionerec(done.folder, tmp_path / "out", index)
    assert (tmp_path / "out" / "train.csv").read_text().splitlines() == [
        "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid",
        'u,"[""It\'s a Mug""]",Tent,[3],4,[\'<a_1><b_2>\'],<a_1>',
    ]
    assert (
        (tmp_path / "out" / "test.csv")
        .read_text()
        .splitlines()[1]
        .endswith(",Sock,\"[3, 4, 3]\",5,\"['<a_1><b_2>', '<a_1>', '<a_1><b_2>']\",<a_3>")
    )
    assert (
        tmp_path / "out" / "info.txt"
    ).read_text() == "<a_1><b_2>\tIt's a Mug\t3\n<a_1>\tTent\t4\n<a_3>\tSock\t5\n"
    assert json.loads((tmp_path / "out" / "shop.item.json").read_text())["3"] == {
        "title": "It's a Mug",
        "brand": "Acme",
    }
    with pytest.raises(UserError, match="exists"):
        write_minionerec(done.folder, tmp_path / "out", index)
    index.write_text('{"3": ["<a_1>"]}')
    with pytest.raises(UserError, match="2 items have no SID, the first is 4"):
        write_minionerec(done.folder, tmp_path / "other", index)
    assert not (tmp_path / "other").exists()


def test_minionerecs_layout_is_read_like_the_prepared_rows(tmp_path: Path) -> None:
    """Both ways to the rows of leaving one out: our reader of sequences, and the CSV files."""
    from sidtune.data.catalogue import Catalogue
    from sidtune.data.leave_one_out import load_leave_one_out
    from sidtune.data.rows import load_rows

    log = "user,item,time\n" + "".join(
        f"{user},{item},15000000{item}\n" for user in "uv" for item in range(10, 19)
    )
    items = write_text(
        tmp_path, "i.csv", "id,title\n" + "".join(f"{item},Item {item}\n" for item in range(10, 19))
    )
    done = prepared(tmp_path, {"file": str(items)}, files=str(write_text(tmp_path, "e.csv", log)))
    write_minionerec(done.folder, tmp_path / "out", None)
    ids = [str(item) for item in range(10, 19)]
    shop = Catalogue(ids, ids, ids, [(f"<a_{item}>",) for item in ids])
    for split in ("train", "valid", "test"):
        one = load_rows(tmp_path / "out" / f"{split}.csv", shop)
        other = load_leave_one_out(done.folder / "interactions.parquet", shop, split, 20)
        assert one.users.to_pylist() == other.users.to_pylist()
        assert one.history.values.tolist() == other.history.values.tolist()
        assert one.target.tolist() == other.target.tolist()


def test_movielens_small_as_it_is(tmp_path: Path) -> None:
    """The real data set, where a copy is at hand."""
    import os

    folder = (
        Path(os.environ.get("SIDTUNE_DATA", Path(__file__).parents[4] / "shared" / "data"))
        / "movielens-small"
    )
    if not folder.is_dir():
        pytest.skip("no copy of MovieLens; SIDTUNE_DATA names the folder of data sets")
    catalogue = {"file": str(folder / "movies.csv")}
    done = prepared(
        tmp_path, catalogue, files=str(folder / "ratings.csv"), k_core=5, split="global_time"
    )
    result = done.summary["result"]
    assert (result["events"], result["users"], result["items"]) == (90_274, 610, 3_650)
    parts = {split: rows(done, split) for split in ("train", "valid", "test")}
    assert [len(part) for part in parts.values()] == [71_731, 8_966, 8_967]
    assert max(row[3] for row in parts["train"]) <= min(row[3] for row in parts["valid"])
