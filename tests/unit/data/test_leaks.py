"""Rows that stand in another file too, and rows that training shows, against slow and obvious
references.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_data import tiny_config, write_rows, write_shop

from sidtune.base.ragged import Ragged
from sidtune.checks import leaks as checked
from sidtune.checks.finding import Finding
from sidtune.checks.leaks import leakage
from sidtune.data import leaks
from sidtune.data.catalogue import Catalogue
from sidtune.data.leaks import contained, examples, repeated_rows, sequences
from sidtune.data.leave_one_out import Interactions
from sidtune.data.rows import Rows, load_rows
from sidtune.data.sequences import whole
from sidtune.inputs import Inputs

Row = tuple[str, list[int], int]
ITEM = st.integers(0, 2)
ROWS = st.lists(
    st.tuples(st.sampled_from(["u", "v", ""]), st.lists(ITEM, min_size=1, max_size=3), ITEM),
    min_size=1,
    max_size=12,
)


def rows_of(rows: list[Row]) -> Rows:
    users, histories, targets = zip(*rows, strict=True)
    return Rows(pa.array(users), Ragged.from_lists(histories), np.array(targets, np.int32))


def slow(rows: list[Row], among: list[Row]) -> list[int]:
    return [index for index, row in enumerate(rows) if row in among]


@given(ROWS, ROWS)
def test_the_same_as_comparing_each_with_each(rows: list[Row], among: list[Row]) -> None:
    for at_once in (2, 65_536):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leaks, "ROWS_AT_ONCE", at_once)
            assert repeated_rows(rows_of(rows), rows_of(among)).tolist() == slow(rows, among)


@given(ROWS, ROWS)
def test_rows_that_only_share_a_hash_are_told_apart(rows: list[Row], among: list[Row]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "mix", lambda keys: keys * np.uint64(0))
        assert repeated_rows(rows_of(rows), rows_of(among)).tolist() == slow(rows, among)


def test_hashes_leave_little_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    made: list[Row] = [
        (
            f"u{random.integers(50)}",
            random.integers(0, 9, random.integers(1, 6)).tolist(),
            int(random.integers(9)),
        )
        for _ in range(4000)
    ]
    compared: list[int] = []
    keys = leaks._keys
    monkeypatch.setattr(
        leaks, "_keys", lambda rows: compared.append(len(rows.target)) or keys(rows)
    )
    rows, among = made[:1000], made[1000:]
    expected = slow(rows, among)
    assert repeated_rows(rows_of(rows), rows_of(among)).tolist() == expected
    assert compared[1] == len(expected) > 0


# --- parts of training sequences ---

Lists = list[tuple[str, list[int]]]
LISTS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.lists(ITEM, min_size=1, max_size=8)), max_size=10
)


def interactions_of(lists: Lists) -> Interactions:
    return Interactions(
        pa.array([user for user, _ in lists], pa.string()), Ragged.from_lists([i for _, i in lists])
    )


def is_part(items: list[int], of: list[int]) -> bool:
    return any(of[at : at + len(items)] == items for at in range(len(of) - len(items) + 1))


def slow_contained(lists: Lists, among: Lists) -> list[int]:
    return [
        place
        for place, (user, items) in enumerate(lists)
        if any(user == other and is_part(items, whole) for other, whole in among)
    ]


@given(LISTS, LISTS, LISTS)
def test_the_same_as_looking_everywhere(lists: Lists, first: Lists, second: Lists) -> None:
    expected = slow_contained(lists, first + second)
    for at_once in (1, 7, 1 << 21):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leaks, "ITEMS_AT_ONCE", at_once)
            among = [interactions_of(first), interactions_of(second)]
            assert contained(interactions_of(lists), among).tolist() == expected


@given(ROWS, ROWS)
def test_every_row_of_training_is_part_of_a_sequence_and_so_is_what_it_joins(
    rows: list[Row], train: list[Row]
) -> None:
    joined = whole(rows_of(train))
    among = [
        (train[row][0], joined.items[at].tolist()) for at, row in enumerate(joined.rows.tolist())
    ]
    among += [(user, [*history, target]) for user, history, target in train]
    asked = [(user, [*history, target]) for user, history, target in rows]
    held_out = rows_of(rows)
    found = contained(examples(held_out), [sequences(rows_of(train), held_out.users)])
    assert found.tolist() == slow_contained(asked, among)


def test_many_repeats_take_no_more_than_their_length() -> None:
    """Comparing each place with each would be ten thousand million comparisons."""
    train = interactions_of([("u", [0] * 100_000)])
    held_out = interactions_of(
        [("u", [0] * length) for length in range(2, 400)] + [("u", [0] * 399 + [1])]
    )
    assert contained(held_out, [train]).tolist() == list(range(398))


# --- the check ---


def of_files(folder: Path, **data: Any) -> list[Finding]:
    return list(leakage(Inputs(tiny_config(folder, data={"test": None, **data}))))


def found(
    folder: Path, train: list[Row], valid: list[Row], test: list[Row] | None = None, **data: Any
) -> list[Finding]:
    index = json.loads(Path(write_shop(folder / "shop")["index"]).read_text())
    for name, rows in (("train", train), ("valid", valid), ("test", test)):
        if rows:
            write_rows(folder / f"{name}.csv", rows, index)
            data[name] = str(folder / f"{name}.csv")
    return of_files(folder, **data)


OTHER: Row = ("z", [6], 7)


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[str] = []

    def load(path: Path, catalogue: Catalogue) -> Rows:
        files.append(path.name)
        return load_rows(path, catalogue)

    monkeypatch.setattr(checked, "load_rows", load)
    rows: list[Row] = [("u", [1, 2, 3, 4], 5)]
    finding = found(tmp_path, rows, rows, rows, history=2)[0]
    assert "also in the training file" in finding.message
    assert sorted(files) == ["test.csv", "train.csv", "valid.csv"]


def test_a_target_that_stands_in_the_users_training_history(tmp_path: Path) -> None:
    train: list[Row] = [("u", [1, 2, 3, 4], 5), ("w", [5, 6], 7)]
    leaked: list[Row] = [("u", [1, 2], 3), ("u", [2], 3), ("u", [3, 4], 5)]
    clean: list[Row] = [
        ("v", [1, 2], 3),
        ("u", [1], 3),
        ("u", [4, 5], 6),
        ("u", [0, 1, 2], 3),
        ("w", [4, 5], 6),
    ]
    (warning,) = found(tmp_path, train, [OTHER, *leaked, *clean], clean)
    assert warning.severity == "warning"
    assert warning.where.endswith("valid.csv")
    assert warning.message.startswith("3 rows leak")
    assert "also in the training file" not in warning.message
    assert warning.examples == ["row 2, user u", "row 3, user u", "row 4, user u"]
    assert warning.remedy


def test_the_training_sequence_may_come_from_several_rows(tmp_path: Path) -> None:
    train: list[Row] = [("u", [1, 2], 3), ("u", [2, 3], 4), ("u", [3, 4], 5)]
    (warning,) = found(tmp_path, train, [("u", [1, 2, 3, 4], 5), OTHER])
    assert warning.examples == ["row 1, user u"]


def test_buying_an_item_again_is_no_leak(tmp_path: Path) -> None:
    train: list[Row] = [("u", [1, 2, 3], 4), ("v", [5], 5)]
    again: list[Row] = [("u", [1, 2, 3, 4], 2), ("u", [2, 3, 4, 2], 3), ("v", [5, 5], 5)]
    assert found(tmp_path, train, again, again) == []
    assert found(tmp_path, [("u", [1, 2, 1], 3)], [("u", [1, 2, 1, 3, 1], 2)], history=1) == [], (
        "uncut, it is new"
    )


@pytest.mark.parametrize(
    ("ours", "theirs"), [("7", "7.0"), ("7.0", "7"), ("7.00", "7.0"), ("-3.0", "-3")]
)
def test_users_7_and_7_0_are_one(tmp_path: Path, ours: str, theirs: str) -> None:
    (warning,) = found(
        tmp_path, [(ours, [1, 2], 3)], [(theirs, [1], 2), (theirs, [1, 2], 3), OTHER]
    )
    assert warning.message.startswith("2 rows leak")
    assert warning.message.endswith(
        "; 1 rows (user, history and target) are also in the training file"
    )


@pytest.mark.parametrize(
    ("ours", "theirs"), [("7", "07"), ("7", "7.5"), ("7.5", "7"), ("7", "+7.0"), ("7", "7e0")]
)
def test_other_users_are_not(tmp_path: Path, ours: str, theirs: str) -> None:
    assert found(tmp_path, [(ours, [1, 2], 3)], [(theirs, [1, 2], 3)]) == []


def record(user: object, history: list[int], target: int, split: str) -> dict[str, object]:
    context = {"history_items": history, "target_item": target}
    return {"user": user, "user_preference": "mugs", "split": split, "context": context}


def test_preferences_leak_and_are_leaked_into(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    records = [
        record(7, [1, 2], 3, "train"),
        record("v", [4], 5, "valid"),
        record("u", [4], 5, "valid"),
    ]
    path.write_text(
        json.dumps([*records, record("7.0", [2], 3, "test"), record("7.0", [2], 3, "valid")])
    )
    warnings = found(tmp_path, [("u", [3, 4], 5)], [("7", [1], 2), OTHER], preferences=str(path))
    assert [(warning.where.rsplit("/")[-1], warning.examples) for warning in warnings] == [
        ("valid.csv", ["row 1, user 7"]),
        ("p.json", ["record 3, user u", "record 5, user 7"]),
    ]


def test_whole_histories_leak_through_preferences_alone(tmp_path: Path) -> None:
    histories, path = tmp_path / "s.inter.json", tmp_path / "p.jsonl"
    histories.write_text(json.dumps({"7.0": [1, 2, 3, 4, 5], "v": [6] * 30, "w": [1, 2]}))
    data: dict[str, Any] = {"train": None, "valid": None, "interactions": str(histories)}
    assert of_files(tmp_path, **data) == [], (
        "what is held out comes later, also where an item is bought again"
    )
    records = [
        record(7, [3, 4], 5, "train"),
        record(7, [2], 3, "valid"),
        record(7, [3], 4, "valid"),
    ]
    path.write_text("\n".join(map(json.dumps, [*records, record("w", [1], 2, "valid")])))
    (warning,) = of_files(tmp_path, **data, preferences=str(path))
    assert (warning.where, warning.examples) == (
        str(path),
        ["record 2, user 7", "record 3, user 7", "record 4, user w"],
    )
    path.write_text(json.dumps(record(7, [1, 2, 3, 4], 5, "train")))
    valid, test = of_files(tmp_path, **data, preferences=str(path))
    assert (valid.where, test.where) == (f"{histories}, valid", f"{histories}, test")
    assert valid.examples == test.examples == ["user 7"]


def test_public_data_leaks_nowhere(tmp_path: Path, amazon: Path, instruments: Path) -> None:
    files = {split: str(amazon / f"{split}.csv") for split in ("train", "valid", "test")}
    assert (
        of_files(
            tmp_path,
            items=None,
            index=str(amazon / "Industrial_and_Scientific.index.json"),
            **files,
        )
        == []
    )
    files = {
        "index": str(instruments / "Instruments.index.json"),
        "items": None,
        "train": None,
        "valid": None,
    }
    assert (
        of_files(tmp_path, **files, interactions=str(instruments / "Instruments.inter.json")) == []
    )
