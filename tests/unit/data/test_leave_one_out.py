"""Whole histories and their leave-one-out splits, by hand and against a slow and
obvious reference.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.data import rows as data_rows
from sidtune.data.catalogue import Catalogue, read_catalogue
from sidtune.data.leave_one_out import (
    Interactions,
    leave_one_out,
    load_leave_one_out,
    read_interactions,
    whole_split,
)
from sidtune.data.rows import Rows, Split

Row = tuple[str, list[int], int]
IDS = ["10", "11", "12", "13", "14", "15"]
CATALOGUE = Catalogue(IDS, [""] * 6, [""] * 6, [(f"<a_{item}>",) for item in IDS])
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def write(folder: Path, content: object) -> Path:
    path = folder / "shop.inter.json"
    path.write_text(json.dumps(content))
    return path


def listed(rows: Rows) -> list[Row]:
    histories = [rows.history[row].tolist() for row in range(len(rows.history))]
    return list(zip(rows.users.to_pylist(), histories, rows.target.tolist(), strict=True))


def slow(sequences: list[list[int]], split: Split, longest: int) -> list[Row]:
    rows = []
    for user, items in enumerate(sequences):
        rest = items[:-2] if len(items) >= 3 else items
        wholes = [rest[:end] for end in range(2, len(rest) + 1)]
        if split != "train":
            wholes = [] if len(items) < 3 else [items[:-1]] if split == "valid" else [items]
        rows += [(f"u{user}", whole[:-1][-longest:], whole[-1]) for whole in wholes]
    return rows


# --- splits ---


def test_every_split_by_hand(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"z": [10, "11", 12, 13, 14], "short": [15, 15], "one": ["12"], "a": ["11", 11, 10]},
    )
    train, valid, test = (
        listed(load_leave_one_out(path, CATALOGUE, split, 20)) for split in SPLITS
    )
    assert train == [("z", [0], 1), ("z", [0, 1], 2), ("short", [5], 5)]
    assert valid == [("z", [0, 1, 2], 3), ("a", [1], 1)]
    assert test == [("z", [0, 1, 2, 3], 4), ("a", [1, 1], 0)]


def test_the_latest_items_of_a_history_stay(tmp_path: Path) -> None:
    path = write(tmp_path, {"u": IDS})
    train, valid, test = (listed(load_leave_one_out(path, CATALOGUE, split, 2)) for split in SPLITS)
    assert train == [("u", [0], 1), ("u", [0, 1], 2), ("u", [1, 2], 3)]
    assert valid == [("u", [2, 3], 4)]
    assert test == [("u", [3, 4], 5)]


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(1, 10),
)
def test_the_same_as_cutting_list_by_list(sequences: list[list[int]], longest: int) -> None:
    users = pa.array([f"u{user}" for user in range(len(sequences))])
    interactions = Interactions(users, Ragged.from_lists(sequences))
    for split in SPLITS:
        assert listed(leave_one_out(interactions, split, longest)) == slow(
            sequences, split, longest
        )


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=6))
def test_every_interaction_but_the_first_is_a_target_once(sequences: list[list[int]]) -> None:
    users = pa.array([str(user) for user in range(len(sequences))])
    rows = [
        leave_one_out(Interactions(users, Ragged.from_lists(sequences)), split, 100)
        for split in SPLITS
    ]
    places = [(user, len(history)) for split in rows for user, history, _ in listed(split)]
    assert sorted(places) == sorted(
        (str(user), place) for user, items in enumerate(sequences) for place in range(1, len(items))
    )


def test_one_very_long_history_takes_no_more_than_its_rows() -> None:
    """Every prefix whole would be five thousand million items."""
    sequence = Ragged.from_lists([range(100_000)])
    rows = leave_one_out(Interactions(pa.array(["u"]), sequence), "train", 3)
    assert len(rows.target) == 100_000 - 3
    assert (rows.target[-1], rows.history[99_996].tolist()) == (99_997, [99_994, 99_995, 99_996])
    assert np.array_equal(rows.history.lengths[:4], [1, 2, 3, 3])


def test_rows_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_rows, "memory", lambda: 1 << 30)
    interactions = Interactions(pa.array(["v", "u"]), Ragged.from_lists([[1], range(100_000)]))
    with pytest.raises(UserError, match="take 19 GiB") as found:
        leave_one_out(interactions, "train", 99_999)
    assert "user u has 99,997 of these rows, with histories of up to 99,997" in str(found.value)
    assert "data.history" in found.value.hint
    assert "events.latest" in found.value.hint
    assert len(leave_one_out(interactions, "train", 1_000).target) == 99_997
    assert len(leave_one_out(interactions, "test", 99_999).target) == 1


# --- files ---


def test_text_and_whole_numbers_name_the_same_items(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"u": [10, "10", 10.0, "10.0", 1e1], "v": ["15"], "7.0": [11]}'
    (tmp_path / "i.json.gz").write_bytes(gzip.compress(content))
    read = read_interactions(tmp_path / "i.json.gz", CATALOGUE)
    assert read.users.to_pylist() == ["u", "v", "7"]
    assert [read.items[user].tolist() for user in range(3)] == [[0] * 5, [5], [1]]


def test_whole_splits_keep_what_rows_cut(tmp_path: Path) -> None:
    path = write(tmp_path, {"u": [10, 11, 12, 13], "two": [14, 15], "v": [15, 15, 15]})
    splits = {split: whole_split(read_interactions(path, CATALOGUE), split) for split in SPLITS}
    found = {
        split: [(user, part.items[row].tolist()) for row, user in enumerate(part.users.to_pylist())]
        for split, part in splits.items()
    }
    assert found == {
        "train": [("u", [0, 1]), ("two", [4, 5]), ("v", [5])],
        "valid": [("u", [0, 1, 2]), ("v", [5, 5])],
        "test": [("u", [0, 1, 2, 3]), ("v", [5, 5, 5])],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["10"]], "expected a JSON object at the top level, found a list"),
        ({}, "the JSON object is empty"),
        ({"": [10]}, "a user has an empty id"),
        ({"u": [10], "v": []}, r"user v: expected a list of item ids, oldest first, found \[\]"),
        (
            {"u": [10], "v": "10 11"},
            "user v: expected a list of item ids, oldest first, found '10 11'",
        ),
        ({"u": [10], "v": {"10": 1}}, "user v: expected a list of item ids"),
        ({"u": [10], "v": None}, "user v: expected a list of item ids, oldest first, found None"),
        ({"u": [10, 11, True]}, "user u, item 3: expected an item id, found True"),
        ({"u": [10, 11.5]}, r"user u, item 2: expected an item id, found 11\.5"),
        (
            {"7": [10], "v": [11], "7.0": [12]},
            "'7' and '7.0' are the same user, which occurs twice",
        ),
        ({"u": [float("nan")]}, "not valid JSON: NaN is not a finite number"),
        ({"u": [None]}, "user u, item 1: expected an item id, found None"),
        ({"u": [10, [11]]}, r"user u, item 2: expected an item id, found \[11\]"),
        ({"u": [10, {"id": 11}]}, "user u, item 2: expected an item id"),
        (
            {"u": [10], "v": [11, 99], "w": ["nine", 99], "x": ["", -1]},
            r"3 users have items without a SID: , -1, 99 and 1 more \(first user v\)",
        ),
    ],
)
def test_anything_else_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_interactions(write(tmp_path, content), CATALOGUE)
    assert "shop.inter.json" in str(error.value)


def test_a_user_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    path.write_text('{"u": [10], "v": [11], "u": [12]}')
    with pytest.raises(UserError, match="'u' occurs twice"):
        read_interactions(path, CATALOGUE)


@pytest.mark.parametrize(
    ("content", "empty"),
    [
        ({"u": [10, 11, 12], "v": [10]}, ["train"]),
        ({"u": [10, 11]}, ["valid", "test"]),
        ({"u": [10]}, [*SPLITS]),
    ],
)
def test_a_split_without_rows_is_refused(tmp_path: Path, content: Any, empty: list[Split]) -> None:
    path = write(tmp_path, content)
    for split in SPLITS:
        if split in empty:
            with pytest.raises(UserError, match=r"shop.inter.json gives no"):
                load_leave_one_out(path, CATALOGUE, split, 20)
        else:
            assert load_leave_one_out(path, CATALOGUE, split, 20).target.tolist()


def test_real_histories_split_as_published(instruments: Path) -> None:
    catalogue = read_catalogue(None, instruments / "Instruments.index.json")
    path = instruments / "Instruments.inter.json"
    train, valid, test = (load_leave_one_out(path, catalogue, split, 20) for split in SPLITS)
    assert [len(rows.target) for rows in (train, valid, test)] == [131_837, 24_772, 24_772]
    assert valid.users.equals(test.users)
    raw = list(json.loads(path.read_text()).items())
    for row in range(0, 24_772, 1000):
        user, items = raw[row]
        assert test.users[row].as_py() == user
        assert [catalogue.ids[item] for item in test.history[row]] == [
            str(item) for item in items[:-1][-20:]
        ]
        assert catalogue.ids[valid.target[row]] == str(items[-2])
