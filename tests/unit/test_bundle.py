"""What a model folder carries beside its weights: written, read back, refused when broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from sidtune.bundle import CATALOGUE, QUESTION, SCHEMA, Bundle, read_bundle, write_bundle
from sidtune.data.catalogue import Catalogue
from sidtune.errors import UserError
from sidtune.templates import load_templates, parse_wording

SIDS = [("<a_1>", "<b_2>"), ("<a_1>",), ("<a_1>", "<b_2>")]
TITLES = ["Mug {blue}", "Zelt, grün", "="]


def bundle(**changes: Any) -> Bundle:
    wording = load_templates()["sid_next"][0]
    given = {
        "catalogue": Catalogue(["17", "x", "0"], TITLES, TITLES, SIDS),
        "users": np.array([3, 0, 12]),
        "task": "sid_next",
        "wording": wording,
        "format": "chat",
        "cutoff_len": 99,
        "longest_history": 7,
    }
    return Bundle(**(given | changes))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    entry = {
        "prompt": ["{{x}} ", "{history_sids}", " a{history_titles}}}"],
        "response": ["{target_sid}!"],
        "separator": ";",
    }
    given = bundle(wording=parse_wording("sid_next", entry, "test"))
    write_bundle(given, tmp_path)
    back = read_bundle(tmp_path)
    assert (back.catalogue, back.wording, back.format) == (given.catalogue, given.wording, "chat")
    assert (back.cutoff_len, back.longest_history) == (99, 7)
    assert back.users.tolist() == [3, 0, 12]


@pytest.mark.parametrize("name", [CATALOGUE, QUESTION])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_bundle(bundle(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version: Input should be 2"),
        ({"task": "fusion"}, "task: Input should be 'sid_next' or 'sid_sequence'"),
        ({"cutoff_len": 1}, "cutoff_len"),
        ({"longest_history": 0}, "longest_history"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        (
            {"wording": {"prompt": ["{history_sids.__class__}"], "response": ["{target_sid}"]}},
            "not a plain placeholder",
        ),
        ({"wording": {"prompt": ["hello"], "response": ["{target_sid}"]}}, "{history_sids} is missing"),
    ],
)
def test_a_question_of_another_shape_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_bundle(bundle(), tmp_path)
    path = tmp_path / QUESTION
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        read_bundle(tmp_path)
    assert str(path) in str(caught.value)


def broken(name: str) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "item_id": ["a", "b"],
        "title": ["A", "B"],
        "sid": [["<a>"], ["<b>"]],
        "users": [1, 2],
    }
    match name:
        case "an item without SID":
            columns["sid"] = [["<a>"], []]
        case "an id twice":
            columns["item_id"] = ["a", "a"]
        case "a hole":
            columns["title"] = ["A", None]
        case "a hole in a SID":
            columns["sid"] = [["<a>", None], ["<b>"]]
        case "no rows":
            columns = {name: [] for name in columns}
        case "a column too few":
            return pa.table(columns, schema=SCHEMA).drop_columns("users")
    return pa.table(columns, schema=SCHEMA)


@pytest.mark.parametrize(
    "name", ["an item without SID", "an id twice", "a hole", "a hole in a SID", "no rows", "a column too few"]
)
def test_a_catalogue_of_another_shape_is_refused(tmp_path: Path, name: str) -> None:
    write_bundle(bundle(), tmp_path)
    pyarrow.parquet.write_table(broken(name), tmp_path / CATALOGUE)
    with pytest.raises(UserError, match="is no catalogue"):
        read_bundle(tmp_path)


def test_a_damaged_catalogue_is_refused(tmp_path: Path) -> None:
    write_bundle(bundle(), tmp_path)
    (tmp_path / CATALOGUE).write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_bundle(tmp_path)
