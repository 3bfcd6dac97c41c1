"""How often users have an item again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sidtune.base.ragged import Ragged
from sidtune.data.rows import Rows
from sidtune.metrics.repeats import RARE, hardly_any, in_history, repeating


def rows(targets: list[int]) -> Rows:
    """A row each, whose history is 0, 1."""
    users = pa.array([str(row) for row in range(len(targets))]).dictionary_encode()
    return Rows(users, Ragged.from_lists([[0, 1]] * len(targets)), np.array(targets, np.int32))


def test_a_target_in_the_history_is_counted() -> None:
    asked = rows([0, 1, 2, 3])
    assert in_history(asked).tolist() == [True, True, False, False]
    share = repeating(asked)
    assert share
    assert share.value == 0.5


@pytest.mark.parametrize(
    ("repeats", "others", "hardly"),
    [(0, 400, True), (0, 200, False), (1, 400, False), (1, 1_000, True), (30, 1_000, False)],
)
def test_hardly_any_needs_rows_enough_to_say_so(repeats: int, others: int, hardly: bool) -> None:
    share = repeating(rows([0] * repeats + [5] * others))
    assert share
    assert hardly_any(share) is hardly
    assert (share.high <= RARE) is hardly


def test_without_rows_nothing_is_said() -> None:
    assert repeating(rows([])) is None
    assert not hardly_any(None)
