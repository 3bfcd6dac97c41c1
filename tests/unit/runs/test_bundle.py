"""What a model folder carries beside its weights: written, read back, refused when broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from sidtune.base.errors import UserError
from sidtune.data.catalogue import Catalogue
from sidtune.encoding.frame import PLAIN, Frame
from sidtune.runs.bundle import (
    CATALOGUE,
    RECOMMENDER_FILE,
    SCHEMA,
    Bundle,
    PromptIds,
    read_bundle,
    read_frame,
    write_bundle,
)
from sidtune.templates import load_templates, parse_template

SIDS = [("<a_1>", "<b_2>"), ("<a_1>",), ("<a_1>", "<b_2>")]
TITLES = ["Mug {blue}", "Zelt, grün", "="]


FRAME = Frame(True, "<s>[INST] ", " [/INST]", " ", " </s>", False, (" \n", " \x1f"), ("", "\n"))


def bundle(**changes: Any) -> Bundle:
    template = load_templates()["sid_next"][0]
    given = {
        "catalogue": Catalogue(["17", "x", "0"], TITLES, TITLES, SIDS),
        "users": np.array([3, 0, 12]),
        "task": "sid_next",
        "template": template,
        "format": "chat",
        "cutoff_len": 99,
        "longest_history": 7,
        "frame": FRAME,
        "prompt_ids": PromptIds([0, 5], [], [7, 7]),
    }
    return Bundle(**(given | changes))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    entry = {
        "prompt": ["{{x}} ", "{history_sids}", " a{history_titles}}}"],
        "response": ["{target_sid}!"],
        "separator": ";",
    }
    given = bundle(template=parse_template("sid_next", entry, "test"))
    write_bundle(given, tmp_path)
    back = read_bundle(tmp_path)
    assert (back.catalogue, back.template, back.format) == (given.catalogue, given.template, "chat")
    assert (back.cutoff_len, back.longest_history) == (99, 7)
    assert (back.frame, back.prompt_ids) == (FRAME, given.prompt_ids)
    assert read_frame(tmp_path) == FRAME
    assert back.users.tolist() == [3, 0, 12]


CHAT = {
    "before": "a", "between": "b", "opening": "", "after": "", "eos": True, "prompt_trim": ["", ""],
    "response_trim": ["", ""],
}  # fmt: skip


def test_plain_has_no_frame_of_its_own(tmp_path: Path) -> None:
    write_bundle(bundle(format="plain", frame=PLAIN, prompt_ids=None), tmp_path)
    back = read_bundle(tmp_path)
    assert (back.format, back.frame, back.prompt_ids) == ("plain", PLAIN, None)


@pytest.mark.parametrize("name", [CATALOGUE, RECOMMENDER_FILE])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_bundle(bundle(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version: expected 3"),
        ({"task": "fusion"}, "task: expected sid_next or sid_sequence"),
        ({"cutoff_len": 1}, "cutoff_len"),
        ({"longest_history": 0}, "longest_history"),
        ({"version": 2}, "version: expected 3"),
        ({"format": "plain"}, "`chat` must contain the text of the chat template"),
        ({"chat": None}, "`chat` must contain the text of the chat template"),
        ({"chat": {"before": 1}}, "chat.before: expected text"),
        ({"chat": CHAT | {"prompt_trim": ["", "e"]}}, "chat.prompt_trim.1: .*must be white space"),
        ({"chat": CHAT | {"prompt_trim": [""]}}, "chat.prompt_trim.1: is missing"),
        ({"chat": CHAT | {"prompt_trim": ["", "", ""]}}, "chat.prompt_trim: .*at most 2"),
        ({"chat": CHAT | {"eos": "yes"}}, "chat.eos: "),
        ({"chat": CHAT | {"more": ""}}, "chat.more: Extra inputs"),
        ({"prompt_ids": {"before": [-1], "separator": [], "after": []}}, "prompt_ids.before.0: "),
        ({"prompt_ids": {"before": [], "separator": []}}, "prompt_ids.after: is missing"),
        ({"prompt_ids": {"before": [], "separator": [], "after": [], "x": 1}}, "prompt_ids.x: "),
        ({"prompt_ids": {"before": ["1"], "separator": [], "after": []}}, "prompt_ids.before.0: "),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        (
            {"template": {"prompt": ["{history_sids.__class__}"], "response": ["{target_sid}"]}},
            "not a plain placeholder",
        ),
        (
            {"template": {"prompt": ["hello"], "response": ["{target_sid}"]}},
            "{history_sids} is missing",
        ),
    ],
)
def test_a_question_of_another_shape_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_bundle(bundle(), tmp_path)
    path = tmp_path / RECOMMENDER_FILE
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
    "name",
    [
        "an item without SID",
        "an id twice",
        "a hole",
        "a hole in a SID",
        "no rows",
        "a column too few",
    ],
)
def test_a_catalogue_of_another_shape_is_refused(tmp_path: Path, name: str) -> None:
    write_bundle(bundle(), tmp_path)
    pyarrow.parquet.write_table(broken(name), tmp_path / CATALOGUE)
    with pytest.raises(UserError, match="is not a valid catalogue"):
        read_bundle(tmp_path)


def test_a_damaged_catalogue_is_refused(tmp_path: Path) -> None:
    write_bundle(bundle(), tmp_path)
    (tmp_path / CATALOGUE).write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_bundle(tmp_path)
