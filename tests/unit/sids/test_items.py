"""Catalogues as titles and texts."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.unit.sids.test_fit import run

from sidtune.base.errors import UserError
from sidtune.sids.fit import make
from sidtune.sids.items import read_items


def test_texts_of_a_json_catalogue(tmp_path: Path) -> None:
    records = {
        "7": {
            "title": "Mug &amp; <b>Cup</b>",
            "brand": "Acme",
            "description": "['One.', 'Two.']",
            "price": "3",
        },
        "8": {"title": 1984, "categories": ["A", "B"]},
    }
    (tmp_path / "shop.item.json").write_text(json.dumps(records))
    found = read_items(tmp_path / "shop.item.json")
    assert found.ids == ["7", "8"]
    assert found.titles == ["Mug & Cup", "1984"]
    assert found.texts == ["Mug & Cup\nAcme\nOne. Two.", "1984\nA B"]
    assert read_items(tmp_path / "shop.item.json", ["price"]).texts == ["Mug & Cup\n3", "1984"]


def test_usual_columns_are_known_however_they_are_written(tmp_path: Path) -> None:
    record = {"Title": "Mug", "Category": "Cups", "BRAND": "Acme", "品牌": "某", "price": 3}
    (tmp_path / "shop.item.json").write_text(json.dumps({"7": record}))
    found = read_items(tmp_path / "shop.item.json")
    assert found.texts == ["Mug\nAcme\nCups\n某"]
    assert found.columns == ("title", "BRAND", "Category", "品牌")
    assert found.others == ("price",)


def test_a_parquet_catalogue_says_the_same(tmp_path: Path) -> None:
    table = pa.table({"item_id": [7, 8], "title": ["Mug", None], "genres": [["A", "B"], None]})
    pyarrow.parquet.write_table(table, tmp_path / "catalogue.parquet")
    found = read_items(tmp_path / "catalogue.parquet")
    assert (found.ids, found.titles, found.texts) == (["7", "8"], ["Mug", ""], ["Mug\nA B", ""])


def test_columns_of_parquet_have_the_usual_names_too(tmp_path: Path) -> None:
    names = pa.array(["Mug", "Tent"]).dictionary_encode()
    ids = [pa.array([9, 7]), pa.array([" 9", "7.0"]), pa.array(["9", "7"]).dictionary_encode()]
    for sku in ids:
        pyarrow.parquet.write_table(
            pa.table({"sku": sku, "prod_name": names}), tmp_path / "p.parquet"
        )
        found = read_items(tmp_path / "p.parquet")
        assert (found.ids, found.titles) == (["9", "7"], ["Mug", "Tent"])
        assert read_items(tmp_path / "p.parquet", ["prod_name"]).texts == ["Mug", "Tent"]
    table = pa.table({"SKU": [3], "Item ID": [2], "item_id": [1], "Title": ["a"], "title": ["b"]})
    pyarrow.parquet.write_table(table, tmp_path / "own.parquet")
    assert read_items(tmp_path / "own.parquet").ids == ["1"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("new.csv", 'sku,name,brand\n9,"Mug, blue",Acme\n7.0,Tent,\n'),
        ("new.tsv", "sku\tname\tbrand\n9\tMug, blue\tAcme\n7.0\tTent\t\n"),
        (
            "new.jsonl",
            '{"sku": 9, "name": "Mug, blue", "brand": "Acme"}\n{"sku": 7.0, "name": "Tent"}\n',
        ),
    ],
)
def test_a_table_of_texts_is_read_in_its_own_order(tmp_path: Path, name: str, text: str) -> None:
    pytest.importorskip("ibis", reason="pip install 'sidtune[prepare]'")
    (tmp_path / name).write_text(text)
    found = read_items(tmp_path / name)
    assert (found.ids, found.titles) == (["9", "7"], ["Mug, blue", "Tent"])
    assert found.texts == ["Mug, blue\nAcme", "Tent"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nr,name\n1,Mug\n", "expected items with a column item_id, found nr, title"),
        ("sku,name\n1,Mug\n1,Tent\n", "1 rows repeat an item id: 1 occurs in 2 rows"),
        ("sku,name\n", "found no row"),
    ],
)
def test_tables_of_texts_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    pytest.importorskip("ibis", reason="pip install 'sidtune[prepare]'")
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_items(tmp_path / "new.csv")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"item_id": [1, 2, 1], "title": list("abc")},
            "1 rows repeat an item id: 1 occurs in 2 rows",
        ),
        ({"item_id": [1.0, 1.5], "title": list("ab")}, "row 2: column item_id holds no item id"),
        ({"nr": [1], "title": ["a"]}, "expected items with a column item_id, found nr, title"),
        ({"item_id": [1, None], "title": list("ab")}, "row 2: column item_id holds no item id"),
    ],
)  # fmt: skip
def test_other_parquet_catalogues_are_refused(
    tmp_path: Path, table: dict[str, list[object]], said: str
) -> None:
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "catalogue.parquet")
    with pytest.raises(UserError, match=said):
        read_items(tmp_path / "catalogue.parquet")


def test_a_column_that_no_item_has_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "shop.item.json").write_text(json.dumps({"1": {"title": "a", "brand": "b"}}))
    with pytest.raises(UserError, match="has 'brnd'; did you mean brand"):
        read_items(tmp_path / "shop.item.json", ["brnd"])


def test_objects_dates_and_numbers_are_read_and_gaps_are_not(tmp_path: Path) -> None:
    records = {
        "7": {"title": "Mug", "details": {"Brand": "Acme", "Colours": ["Red", {"Inner": "White"}]}},
        "8": {"title": "Tent", "details": {}},
    }
    (tmp_path / "shop.item.json").write_text(json.dumps(records))
    found = read_items(tmp_path / "shop.item.json", ["details"])
    assert found.texts == ["Mug\nAcme Red White", "Tent"]
    columns = {
        "item_id": [7, 8],
        "title": ["Mug", "Tent"],
        "details": [{"brand": "Acme", "year": 1984}, None],
        "weight": [2.5, float("nan")],
        "since": [date(2020, 5, 1), None],
        "price": [Decimal("9.90"), None],
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "catalogue.parquet")
    found = read_items(tmp_path / "catalogue.parquet", ["details", "weight", "since", "price"])
    assert found.texts == ["Mug\nAcme 1984\n2.5\n2020-05-01\n9.90", "Tent"]
    assert found.columns == ("title", "details", "weight", "since", "price")


def test_a_column_without_any_text_is_not_said_to_be_read(tmp_path: Path) -> None:
    records = {str(at): {"title": f"mug {at}", "tags": [], "sold": True} for at in range(4)}
    file = tmp_path / "shop.item.json"
    file.write_text(json.dumps(records))
    assert read_items(file).columns == ("title",)
    with pytest.raises(UserError, match=r"'sold' of .* has no text for any item") as told:
        make(run(tmp_path / "other", catalogue=str(file), columns=["sold"]))
    assert "Leave it out" in told.value.hint
