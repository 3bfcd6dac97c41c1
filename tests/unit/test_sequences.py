"""Users' sequences put together again from rows, by hand and as the inverse of cutting them up."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sidtune.data.rows import Rows
from sidtune.data.sequences import user_sequences
from sidtune.ragged import Ragged

Row = tuple[str, list[int], int]
# An item once: a repeated item could make rows of two places look alike.
SEQUENCE = st.lists(st.integers(0, 99), min_size=2, max_size=9, unique=True)


def sequences(rows: list[Row]) -> list[list[int]]:
    users, histories, targets = zip(*rows, strict=True)
    found = user_sequences(Rows(pa.array(users), Ragged.from_lists(histories), np.array(targets, np.int32)))
    return [found[number].tolist() for number in range(len(found))]


def test_growing_histories_are_one_sequence() -> None:
    assert sequences([("u", [1], 2), ("u", [1, 2], 2), ("u", [1, 2, 2], 3)]) == [[1, 2, 2, 3]]


def test_histories_cut_to_the_newest_items() -> None:
    assert sequences([("u", [1, 2], 3), ("u", [2, 3], 4), ("u", [3, 4], 5)]) == [[1, 2, 3, 4, 5]]


def test_rows_may_be_missing() -> None:
    assert sequences([("u", [1], 2), ("u", [1, 2, 3], 4)]) == [[1, 2, 3, 4]]


def test_rows_that_do_not_follow_begin_anew() -> None:
    assert sequences([("u", [1], 2), ("u", [7, 8], 9)]) == [[1, 2], [7, 8, 9]]


def test_users_are_kept_apart_wherever_their_rows_stand() -> None:
    assert sequences([("u", [1], 2), ("v", [2], 5), ("u", [1, 2], 3), ("v", [2, 5], 6)]) == [[1, 2, 3], [2, 5, 6]]


@given(st.lists(SEQUENCE, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_it_undoes_cutting_up(given_sequences: list[list[int]], random: object) -> None:
    rows = [
        (f"u{user}", items[:cut], items[cut])
        for user, items in enumerate(given_sequences)
        for cut in range(1, len(items))
    ]
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert sorted(sequences(rows)) == sorted(given_sequences)
