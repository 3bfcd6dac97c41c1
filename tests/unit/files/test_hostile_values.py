"""Values that are no value of their place: numbers as ids, names that cannot be asked for, folders
that cannot be.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.fuzz.readers import model_folder
from tests.tiny_data import read_rows

from sidtune.base.errors import UserError
from sidtune.decoding.stream import read_histories
from sidtune.encoding.corpus import cached_task
from sidtune.encoding.remember import remembered
from sidtune.files.literals import parse_list
from sidtune.files.text import read_json, read_lines
from sidtune.runs.bundle import CATALOGUE, read_bundle
from sidtune.runs.output import refuse_foreign

# --- encodings ---


@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        ("用户ID,商品ID", "gb18030", "GB18030"),
        ("Café,naïve", "latin-1", "LATIN1"),
        ("Ä", "latin-1", "LATIN1"),
        ("ÄÖÜ", "latin-1", "LATIN1"),
        ("don’t,naïve", "cp1252", "LATIN1"),
        ("会員番号,商品番号", "cp932", "CP932"),
        ("sku,アヒル", "cp932", "CP932"),
        ("user,item", "utf-16", "UTF-16"),
    ],
)
def test_text_of_another_encoding_says_how_to_convert_it(
    tmp_path: Path, text: str, encoding: str, likely: str
) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match="not UTF-8") as refusal:
        list(read_lines(path))
    assert f"iconv -f {likely} -t UTF-8 items.csv > NEW_FILE" in refusal.value.hint


# --- ids ---


def as_jsonl(folder: Path, row: dict[str, Any]) -> Path:
    path = folder / "r.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def as_parquet(folder: Path, row: dict[str, Any]) -> Path:
    path = folder / "r.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist([row]), path)
    return path


Write = Callable[[Path, dict[str, Any]], Path]
EITHER = pytest.mark.parametrize("write", [as_jsonl, as_parquet])


@EITHER
@pytest.mark.parametrize(
    ("value", "name"), [(7, "7"), (7.0, "7"), (-0.0, "0"), (2.0**53, str(2**53)), ("7.0", "7.0")]
)
def test_an_id_is_the_same_in_every_file(
    tmp_path: Path, write: Write, value: Any, name: str
) -> None:
    rows = read_rows(
        write(tmp_path, {"user_id": value, "history": [value, value], "item_id": value})
    )
    assert rows.to_pylist() == [{"user_id": name, "history": [name, name], "target": name}]
    assert parse_list(f"[{value!r}]") == [name]


@EITHER
@pytest.mark.parametrize("value", [1.5, 2.0**54, float("nan"), float("inf"), True])
@pytest.mark.parametrize("column", ["user_id", "history", "item_id"])
def test_other_numbers_are_no_ids(tmp_path: Path, write: Write, column: str, value: Any) -> None:
    row = {"user_id": "u", "history": ["1"], "item_id": "2"} | {
        column: [value] if column == "history" else value
    }
    with pytest.raises(UserError, match=f"column {column}: |line 1: .* is not a finite number"):
        read_rows(write(tmp_path, row))


def test_the_row_of_a_number_that_is_no_id(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": [1.0, 2.0, float("nan")],
            "history": [[1.0], [2.0, 3.0], [4.0]],
            "item_id": [1, 2, 3],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(UserError, match="row 3, column user_id: the number is not whole"):
        read_rows(tmp_path / "r.parquet")
    lists = pa.array([[1.0], [2.0, 3.5], [4.0]])
    pyarrow.parquet.write_table(
        table.set_column(0, "user_id", pa.array([1, 2, 3])), tmp_path / "r.parquet"
    )
    assert read_rows(tmp_path / "r.parquet")["history"].to_pylist() == [["1"], ["2", "3"], ["4"]]
    table = table.set_column(0, "user_id", pa.array([1, 2, 3])).set_column(1, "history", lists)
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(UserError, match="row 2, column history: the number is not whole"):
        read_rows(tmp_path / "r.parquet")


@pytest.mark.parametrize(
    ("column", "fits"),
    [
        (pa.array([b"u"]), True),
        (pa.array([7], pa.decimal128(38, 0)), True),
        (pa.array(["u"]).dictionary_encode(), True),
        (pa.array([7], pa.decimal128(38, 2)), False),
        (pa.array([0], pa.timestamp("us")), False),
    ],
)
def test_types_of_ids_in_parquet(tmp_path: Path, column: pa.Array, fits: bool) -> None:
    path = tmp_path / "r.parquet"
    pyarrow.parquet.write_table(
        pa.table({"user_id": column, "history": [["1"]], "item_id": ["2"]}), path
    )
    if fits:
        assert read_rows(path)["user_id"].to_pylist() in (["u"], ["7"])
    else:
        with pytest.raises(UserError, match="column user_id: expected ids, found"):
            read_rows(path)


def test_a_history_to_be_answered_is_of_ids() -> None:
    assert list(read_histories(['{"history": ["a", 7, 8.0]}'], "here")) == [(None, ["a", "7", "8"])]
    for entry in ("true", "1.5", "null"):
        with pytest.raises(UserError, match="here, line 1: expected an object with a history"):
            list(read_histories([f'{{"history": [{entry}]}}'], "here"))


def test_finite_numbers_of_json_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1.5, 1e308, 1e-400, -0.0]}')
    assert read_json(path) == {"a": [1.5, 1e308, 0.0, 0.0]}


def test_a_list_with_odd_escapes_warns_nobody() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert parse_list("['\\z\x1b[2J']") == ["\\z\x1b[2J"]
    assert not said


# --- models ---


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("item_id", "", "the item id '' is empty"),
        ("item_id", " 1", "the item id ' 1' is empty, starts or ends with white space"),
        ("item_id", "a\0", r"the item id 'a\\x00' .* contains a NUL or a line break"),
        ("sid", ["<a>", ""], "the SID token '' is empty"),
    ],
)
def test_a_model_whose_items_cannot_be_named(
    tmp_path: Path, column: str, value: Any, message: str
) -> None:
    model_folder(tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / CATALOGUE)
    at = table.column_names.index(column)
    values = pa.array([value, *table[column].to_pylist()[1:]], table.schema.field(at).type)
    pyarrow.parquet.write_table(
        table.set_column(at, table.schema.field(at), values), tmp_path / CATALOGUE
    )
    with pytest.raises(UserError, match=message):
        read_bundle(tmp_path)


# --- folders ---


@pytest.mark.parametrize("below", ["", "runs/1"])
def test_an_output_folder_that_cannot_be(tmp_path: Path, below: str) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").write_text("kept")
    for name, message in (
        ("dangling", r"dangling is a broken link \(nothing\)"),
        ("circle", r"circle is a broken link \(circle\)"),
        ("file", "file is a file"),
    ):
        with pytest.raises(UserError, match=f"output_dir .*{message}"):
            refuse_foreign(tmp_path / name / below)
    refuse_foreign(tmp_path / "new" / below)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    refuse_foreign(tmp_path / "link" / below)


@pytest.mark.parametrize("name", ["dangling", "file", "file/below"])
def test_a_cache_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match=r"encoding.cache_dir .* cannot be used: "):
        remembered("found", {}, tmp_path / name, lambda: 1)
    with pytest.raises(UserError, match=r"encoding.cache_dir .* cannot be used: "):
        cached_task("sid_next", {}, tmp_path / name, lambda: iter([]))
