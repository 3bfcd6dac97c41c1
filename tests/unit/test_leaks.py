"""Rows that stand in another file too, against a slow and obvious reference."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidtune.data import leaks
from sidtune.data.leaks import repeated_rows
from sidtune.data.rows import Rows
from sidtune.ragged import Ragged

Row = tuple[str, list[int], int]
ITEM = st.integers(0, 2)
ROWS = st.lists(
    st.tuples(st.sampled_from(["u", "v", ""]), st.lists(ITEM, min_size=1, max_size=3), ITEM), min_size=1, max_size=12
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
        (f"u{random.integers(50)}", random.integers(0, 9, random.integers(1, 6)).tolist(), int(random.integers(9)))
        for _ in range(4000)
    ]
    compared: list[int] = []
    keys = leaks._keys
    monkeypatch.setattr(leaks, "_keys", lambda rows: compared.append(len(rows.target)) or keys(rows))
    rows, among = made[:1000], made[1000:]
    expected = slow(rows, among)
    assert repeated_rows(rows_of(rows), rows_of(among)).tolist() == expected
    assert compared[1] == len(expected) > 0
