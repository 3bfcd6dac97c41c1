"""Ids: 17.0 is 17 in every reader, no two ids become one, and no number of bytes of them is too
many.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_data import tiny_config, write_shop

from sidtune.base.errors import UserError
from sidtune.checks.data import catalogue as check_catalogue
from sidtune.data.catalogue import Catalogue, read_catalogue
from sidtune.data.history_keys import history_keys
from sidtune.data.leave_one_out import read_interactions
from sidtune.data.popularity import popularity
from sidtune.data.preferences import read_preferences
from sidtune.data.rows import Rows, load_rows, resolve_rows
from sidtune.data.sequences import whole
from sidtune.decoding.answers import allowed_items
from sidtune.decoding.stream import read_histories
from sidtune.files.ids import (
    CODES,
    Names,
    as_texts,
    as_users,
    canonical,
    coded_ids,
    in_common,
    join_ids,
    split_ids,
)
from sidtune.files.row_files import ROWS, row_batches
from sidtune.files.text import parse_json
from sidtune.inputs import Inputs

# --- on the command line ---

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1)


@given(st.lists(NAMES))
def test_ids_between_commas(names: list[str]) -> None:
    assert split_ids(join_ids(names)) == names


def test_ids_with_commas_are_quoted() -> None:
    assert split_ids(' 17,, "a, b" ,5" pipe, ') == ["17", "a, b", '5" pipe']
    assert join_ids(["17", "a, b"]) == '17,"a, b"'
    assert split_ids(" ") == []
    assert split_ids("17,\n4") == ["17", "4"]


# --- 17.0 is 17 ---

Ways = dict[str, Callable[[Path], Path]]


def csv(history: str, target: str, user: str, column: str = "history") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "r.csv"
        path.write_text(f'user_id,{column},item_id\n{user},"{history}",{target}\n')
        return path

    return write


def jsonl(history: list[Any], target: Any, user: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "r.jsonl"
        path.write_text(json.dumps({"user_id": user, "history": history, "item_id": target}) + "\n")
        return path

    return write


def parquet(history: pa.Array, target: pa.Array, user: pa.Array) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "r.parquet"
        pyarrow.parquet.write_table(
            pa.table({"user_id": user, "history": history, "item_id": target}), path
        )
        return path

    return write


def floats(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind)


WAYS: Ways = {
    "csv of whole numbers": csv("[1, 2]", "3", "7"),
    "csv of floats": csv("[1.0, 2.0]", "3.0", "7.0"),
    "csv of more decimals": csv("[1.00, 2.000]", "3.0000", "7.00"),
    "csv of texts of floats": csv("['1.0', '2.0']", "3.0", "7.0", "history_item_id"),
    "csv of both": csv("[1, '2.0']", "3.0", "7"),
    "jsonl of floats": jsonl([1.0, 2.0], 3.0, 7.0),
    "jsonl of texts of floats": jsonl(["1.0", "2.0"], "3.0", "7.0"),
    "parquet of floats": parquet(
        pa.array([[1.0, 2.0]]), floats([3.0], pa.float64()), floats([7.0], pa.float64())
    ),
    "parquet of short floats": parquet(
        pa.array([[1.0, 2.0]], pa.list_(pa.float32())),
        floats([3.0], pa.float32()),
        floats([7.0], pa.float32()),
    ),
    "parquet of texts of floats": parquet(
        pa.array([["1.0", "2.0"]]), pa.array(["3.0"]), pa.array(["7.0"])
    ),
    "parquet of lists as text": parquet(pa.array(["[1.0, 2.0]"]), pa.array([3]), pa.array([7])),
}


def shop(ids: list[str]) -> Catalogue:
    return Catalogue(ids, [""] * len(ids), [""] * len(ids), [(f"<a_{item}>",) for item in ids])


@pytest.mark.parametrize("ids", [["1", "2", "3"], ["1.0", "2.0", "3.0"], ["1", "2.0", "3.00"]])
@pytest.mark.parametrize("way", WAYS)
def test_17_0_is_17_in_rows(tmp_path: Path, way: str, ids: list[str]) -> None:
    rows = load_rows(WAYS[way](tmp_path), shop(ids))
    assert rows.users.to_pylist() == ["7"]
    assert (rows.history[0].tolist(), rows.target.tolist()) == ([0, 1], [2])


def test_17_0_is_17_in_every_other_reader(tmp_path: Path) -> None:
    catalogue = shop(["1", "2", "3"])
    histories, preferences = tmp_path / "s.inter.json", tmp_path / "p.json"
    histories.write_text('{"7.0": [1.0, "2.0", 3, "3"]}')
    read = read_interactions(histories, catalogue)
    assert (read.users.to_pylist(), read.items[0].tolist()) == (["7"], [0, 1, 2, 2])
    context = {"history_items": [1.0, "2.0"], "target_item": "3.0"}
    preferences.write_text(
        json.dumps([{"user": "7.0", "user_preference": "mugs", "context": context}])
    )
    table = read_preferences(preferences)
    rows = resolve_rows(table.select(["user_id", "history", "target"]), catalogue, preferences)
    assert (rows.users.to_pylist(), rows.history[0].tolist(), rows.target.tolist()) == (
        ["7"],
        [0, 1],
        [2],
    )
    assert allowed_items(["3.0", "1"], catalogue).tolist() == [True, False, True]
    ((_, asked),) = read_histories(['{"history": [1.0, "2.0", "3"]}'], "here")
    assert catalogue.positions(pa.array(asked)).tolist() == [0, 1, 2]


def test_items_and_index_may_write_a_number_in_two_ways(tmp_path: Path) -> None:
    (tmp_path / "i.json").write_text(
        json.dumps({"1.0": {"title": "A"}, "2": {"title": "B"}, "x": {"title": "C"}})
    )
    (tmp_path / "x.json").write_text(json.dumps({"x": ["<a>"], "2.00": ["<b>"], "1": ["<c>"]}))
    read = read_catalogue(tmp_path / "i.json", tmp_path / "x.json")
    assert (read.ids, read.titles) == (["x", "2.00", "1"], ["C", "B", "A"])


def test_an_item_that_is_written_so_is_never_another(tmp_path: Path) -> None:
    ids = ["7", "7.0", "8.0", "8.00", "9.0", "x.0", "1.5", "07", "07.0"]
    names = Names.of(ids)
    assert names.positions(pa.array(ids)).tolist() == list(range(len(ids)))
    others = {
        "7.00": 0,
        "8": -1,
        "8.000": -1,
        "9": 4,
        "9.00": 4,
        "x": -1,
        "1": -1,
        "1.50": -1,
        "07.00": -1,
        "": -1,
    }
    assert names.positions(pa.array([*others, None])).tolist() == [*others.values(), -1]
    path = csv("[7, '7.0']", "7.0", "u")(tmp_path)
    rows = load_rows(path, shop(ids))
    assert (rows.history[0].tolist(), rows.target.tolist()) == ([0, 1], [1])
    with pytest.raises(UserError, match="items without a SID: 8 "):
        load_rows(csv("[8]", "7", "u")(tmp_path), shop(ids))


def test_check_says_which_items_are_one_number(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "shop")
    for name in ("items", "index"):
        tree = json.loads(Path(data[name]).read_text())
        Path(data[name]).write_text(json.dumps(tree | {"7.0": tree["5"]}))
    inputs = Inputs(tiny_config(tmp_path / "run", data=data))
    vars(inputs)["catalogue"] = read_catalogue(Path(data["items"]), Path(data["index"]))
    (warning,) = (finding for finding in check_catalogue(inputs) if finding.severity == "warning")
    assert warning.message.startswith("2 items have ids that are the same number")
    assert warning.examples == ["7 and 7.0"]
    assert warning.remedy


def slow_canonical(text: str) -> str:
    """By the decimal point: what stands before it, where nothing but zeros stands behind it."""
    head, point, tail = text.partition(".")
    digits = head.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and (digits == "0" or not digits.startswith("0"))
    if point and tail and not tail.strip("0") and plain and int(digits) <= 2**53:
        return str(int(head))
    return text


NUMERAL = st.from_regex(r"-?[0-9]{1,17}\.?0{0,3}[05]?", fullmatch=True)


@given(
    st.lists(
        st.one_of(NUMERAL, st.text("0.-+e7 ", max_size=5), st.sampled_from(["9007199254740993.0"]))
    )
)
def test_which_texts_are_numbers(texts: list[str]) -> None:
    assert canonical(pa.array(texts, pa.large_string())).to_pylist() == [
        slow_canonical(text) for text in texts
    ]
    assert as_users(pa.array(texts, pa.string())).to_pylist() == [
        slow_canonical(text) for text in texts
    ]


@pytest.mark.parametrize(
    ("column", "largest"),
    [
        (pa.array([2.0**24, 2.0**24 + 2], pa.float32()), "16777216"),
        (pa.array([2.0**53, 2.0**53 + 2]), str(2**53)),
    ],
)
def test_floats_that_cannot_tell_neighbours_apart(column: pa.Array, largest: str) -> None:
    ids, broken = coded_ids(column)
    assert ids[0].as_py() == largest
    assert broken.tolist() == [False, True]


@pytest.mark.parametrize(
    "text",
    ["9007199254740993.0", "-9007199254740993.0", "1.00000000000000000001", "7.0000000000000001"],
)
def test_no_number_of_json_becomes_anothers_id_by_rounding(text: str) -> None:
    with pytest.raises(UserError, match="expected an object with a history"):
        list(read_histories([f'{{"history": [{text}]}}'], "here"))
    assert parse_json(f"[{text}]", "here")[0] == pytest.approx(float(text))


# --- users as codes ---

# A name of 1 MiB; 3,000 rows of them are more than Arrow's plain texts can hold.
NAME = "x" * (1 << 20)


def long_users(rows: int, first: str = "a") -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array([first + NAME], pa.large_string())
    )


def rows_of(users: pa.Array) -> Rows:
    history = pa.array([["1"]] * len(users), ROWS.field("history").type)
    targets = pa.array(["2"] * len(users), CODES)
    return resolve_rows(
        pa.table([users, history, targets], schema=ROWS), shop(["1", "2"]), Path("r")
    )


def test_more_bytes_of_users_than_plain_texts_hold() -> None:
    assert 3000 * len(NAME) > 2**31
    tables = [rows_of(long_users(3000, first)) for first in "ab"]
    joined = pa.concat_arrays([part.users for part in tables])
    rows = rows_of(joined).take(np.arange(1, 6000))
    assert rows.users.type == CODES
    assert rows.users.nbytes < 100_000_000
    assert in_common([rows.users, long_users(2, "b")])[1].tolist() == [1, 1]
    assert popularity(rows, 2).tolist() == [2, 2]
    assert len(np.unique(history_keys(rows.users, "history_sids"))) == 2
    assert len(whole(rows).rows) == 5999


def test_a_file_of_long_users(tmp_path: Path) -> None:
    """Twelve names that do not compress, in two hundred rows each: 2.4 GiB of text in a file of 12
    MiB.
    """
    random = np.random.default_rng(0)
    names = [bytes(random.integers(97, 123, 1 << 20, np.uint8)).decode() for _ in range(12)]
    codes = np.repeat(np.arange(12, dtype=np.int32), 200)
    users = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names))
    table = pa.table({"user_id": users, "history": [["1"]] * 2400, "item_id": ["2"] * 2400})
    path = tmp_path / "r.parquet"
    pyarrow.parquet.write_table(table, path, compression="none", dictionary_pagesize_limit=1 << 26)
    rows = load_rows(path, shop(["1", "2"]))
    assert rows.users.type == CODES
    assert rows.users.indices.to_pylist() == codes.tolist()
    assert rows.users.dictionary.to_pylist() == names


def test_every_batch_of_rows_holds_users_as_codes(tmp_path: Path) -> None:
    for way, write in WAYS.items():
        for batch in row_batches(write(tmp_path)):
            assert batch.schema == ROWS, way
            assert pa.types.is_large_string(batch.schema.field("history").type.value_type)
            assert pa.types.is_large_string(batch.schema.field("user_id").type.value_type)


def test_a_batch_keeps_only_the_names_of_its_rows() -> None:
    many = pa.DictionaryArray.from_arrays(
        pa.array([5, 2, None, 5], pa.int64()), pa.array([f"u{n}" for n in range(9)])
    )
    ids, broken = coded_ids(many)
    assert ids.dictionary.to_pylist() == ["u5", "u2"]
    assert ids.to_pylist() == ["u5", "u2", None, "u5"]
    assert not broken.any()


def test_users_of_a_table_are_plain_text() -> None:
    users = pa.concat_arrays([long_users(3, "u"), pa.array(["7", "7.0"], CODES)])
    assert as_texts(as_users(users)).to_pylist() == ["u" + NAME] * 3 + ["7"] * 2
    assert as_texts(users).type == pa.string()
