"""Item transitions by hand, and the choice of their settings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sidtune.base.ragged import Ragged
from sidtune.data.rows import Rows
from sidtune.ranker.pairs import Asked
from sidtune.ranker.sources.transitions import (
    COUNTS,
    DECAYS,
    Transitions,
    TransitionSettings,
    _ndcg,
    tuned_transitions,
)

ITEMS = 5


def rows_of(*rows: tuple[str, list[int], int]) -> Rows:
    users, histories, targets = zip(*rows, strict=True)
    return Rows(pa.array(users), Ragged.from_lists(histories), np.array(targets, np.int32))


def growing(user: str, sequence: list[int]) -> list[tuple[str, list[int], int]]:
    """A row for every item of a sequence but the first."""
    return [(user, sequence[:cut], sequence[cut]) for cut in range(1, len(sequence))]


def dense(transitions: Transitions) -> list[list[float]]:
    return transitions.matrix.toarray().round(6).tolist()  # type: ignore[no-any-return]


def test_shares_of_what_followed() -> None:
    train = rows_of(*growing("u", [0, 1, 2]), *growing("v", [0, 2]), *growing("w", [0, 1]))
    counted = Transitions.count(train, ITEMS, TransitionSettings(window=1))
    assert dense(counted) == [
        [0, 0.666667, 0.333333, 0, 0],
        [0, 0, 1, 0, 0],
        *[[0, 0, 0, 0, 0]] * 3,
    ]


def test_a_wider_window_weighs_by_distance() -> None:
    train = rows_of(*growing("u", [0, 1, 2, 3]))
    counted = Transitions.count(train, ITEMS, TransitionSettings(window=2, gap_weight=0.5))
    # 0 → 1 counts 1, 0 → 2 counts 1/2.
    assert dense(counted)[0] == [0, 0.666667, 0.333333, 0, 0]
    assert dense(counted)[2] == [0, 0, 0, 1, 0]


def test_pairs_of_overlapping_sequences_count_once() -> None:
    """The second row of `u` continues none, and opens with items that were shown before."""
    train = rows_of(("u", [0], 1), ("u", [0, 1, 2], 3))
    counted = Transitions.count(train, ITEMS, TransitionSettings(window=2))
    assert dense(counted)[0] == [0, 1, 0, 0, 0]
    assert dense(counted)[1] == [0, 0, 0, 1, 0]
    assert dense(counted)[2] == [0, 0, 0, 1, 0]


def test_later_items_of_a_history_weigh_more() -> None:
    train = rows_of(*growing("u", [0, 1]), *growing("v", [2, 3]))
    counted = Transitions.count(train, ITEMS, TransitionSettings(decay=0.25))
    scores = counted.scores(Ragged.from_lists([[0, 2], [2, 0], [4], []])).toarray()
    assert scores.tolist() == [[0, 0.25, 0, 1, 0], [0, 1, 0, 0.25, 0], [0] * 5, [0] * 5]


def test_settings_are_those_that_rank_validation_rows_best() -> None:
    """What matters here is two places back, so that only a wide window finds it."""
    sequences = [growing(f"u{n}", [first, 4, first + 2]) for n, first in enumerate([0, 1] * 10)]
    train = rows_of(*[row for rows in sequences for row in rows])
    valid = rows_of(("x", [0, 4], 2), ("y", [1, 4], 3))
    chosen = tuned_transitions(train, valid, ITEMS)
    assert chosen.settings.window > 1
    assert (chosen.settings.window, chosen.settings.gap_weight) in COUNTS
    assert chosen.settings.decay in DECAYS
    assert tuned_transitions(train, None, ITEMS).settings == TransitionSettings()


@pytest.mark.parametrize(
    ("allowed", "hidden", "expected"),
    [
        (None, None, [1 / np.log2(3), 0]),
        ([True, False, True, True, True], None, [1, 0]),
        (None, [[1], [0]], [1, 0]),
        ([True, True, False, True, True], None, [0, 0]),
    ],
)
def test_ndcg_of_scores_by_hand(
    allowed: list[bool] | None, hidden: list[list[int]] | None, expected: list[float]
) -> None:
    import scipy.sparse as sp

    scores = sp.csr_array([[0, 0.5, 0.25, 0, 0], [0.5, 0, 0, 0.1, 0]])
    asked = Asked(
        Ragged.from_lists([[4], [4]]),
        ITEMS,
        None,
        None if allowed is None else np.array(allowed),
        None if hidden is None else Ragged.from_lists(hidden),
    )
    found = _ndcg(scores, asked, np.array([2, 4]), np.zeros(ITEMS))
    assert found == pytest.approx(np.mean(expected))
