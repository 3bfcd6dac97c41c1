"""Pairs of row and candidate, against sets and sorted lists."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from sidtune.base.ragged import Ragged
from sidtune.ranker.pairs import Asked, Beams, Pairs, best_of_rows, highest
from sidtune.ranker.sparse import cut_rows, matrix_of, tensors_of

ITEMS = 7
LISTS = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=5), min_size=2, max_size=2)
HISTORIES = st.lists(
    st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=4), min_size=2, max_size=2
)


@given(LISTS, LISTS, HISTORIES, st.sets(st.integers(0, ITEMS - 1)), st.booleans())
def test_the_union_of_lists(
    first: list[list[int]],
    second: list[list[int]],
    histories: list[list[int]],
    allowed: set[int],
    exclude: bool,
) -> None:
    mask = np.isin(np.arange(ITEMS), list(allowed))
    lists = Ragged.from_lists(histories)
    asked = Asked(lists, ITEMS, None, mask, lists if exclude else None)
    pairs = Pairs.union([Ragged.from_lists(first), Ragged.from_lists(second)], asked)
    expected = [
        (row, item)
        for row in range(2)
        for item in sorted({*first[row], *second[row]} & allowed)
        if not (exclude and item in histories[row])
    ]
    assert list(zip(pairs.row.tolist(), pairs.item.tolist(), strict=True)) == expected


@given(LISTS, st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_places_ranks_and_best(lists: list[list[int]], seed: int, depth: int) -> None:
    asked = Asked(Ragged.from_lists([[0], [0]]), ITEMS)
    pairs = Pairs.union([Ragged.from_lists(lists)], asked)
    scores = np.random.default_rng(seed).integers(0, 3, len(pairs)).astype(float)
    target = np.array([2, 5])
    best, values = pairs.best(scores, depth)
    given_scores = dict(zip(pairs.keys.tolist(), scores.tolist(), strict=True))
    for row in range(2):
        ordered = sorted(
            set(lists[row]), key=lambda item: (-given_scores[row * ITEMS + item], item)
        )
        assert best[row].tolist() == ordered[:depth]
        wanted = target[row]
        place = ordered.index(wanted) + 1 if wanted in ordered else 0
        assert pairs.ranks(scores, target)[row] == place
    assert values.tolist() == [
        given_scores[row * ITEMS + item] for row in range(2) for item in best[row].tolist()
    ]


def test_entries_of_a_sparse_matrix() -> None:
    matrix = sp.csr_array([[0, 0.5, 0], [0.25, 0, 1]])
    pairs = Pairs(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 2, 3)
    assert pairs.look_up(matrix).tolist() == [0, 0.5, 0.25, 0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_the_best_entries_of_rows(seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    dense = random.integers(0, 4, (4, 4)) / 4
    best, cut = best_of_rows(sp.csr_array(dense), most), cut_rows(sp.csr_array(dense), most)
    for row in range(4):
        ordered = sorted(np.flatnonzero(dense[row]).tolist(), key=lambda at: (-dense[row, at], at))
        assert best[row].tolist() == ordered[:most]
        kept = np.isin(np.arange(4), ordered[:most])
        assert cut.toarray()[row].tolist() == np.where(kept, dense[row], 0).tolist()
    again = matrix_of("m", tensors_of("m", cut))
    assert again.toarray().tolist() == cut.toarray().tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.data())
def test_the_highest_of_dense_rows(seed: int, columns: int, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, columns))
    random = np.random.default_rng(seed)
    # Few values, so that many are equal, and some that may not be listed.
    scores = random.integers(0, 6, (3, columns)).astype(np.float32)
    scores[scores == 0] = -np.inf
    best = highest(scores, most)
    assert best.shape == (3, most)
    for row in range(3):
        assert len(set(best[row].tolist())) == most
        expected = np.sort(scores[row])[::-1][:most]
        assert np.sort(scores[row, best[row]])[::-1].tolist() == expected.tolist()


def test_indices_beyond_a_matrix_are_refused() -> None:
    tensors = tensors_of("m", sp.csr_array(np.eye(2)))
    tensors["m.indices"] = np.array([0, 9], np.int32)
    with pytest.raises(ValueError, match="ind"):
        matrix_of("m", tensors)


def test_chunks_hold_every_row_once() -> None:
    lists = Ragged.from_lists([[row % 3] * (1 + row % 4) for row in range(5_000)])
    beams = Beams(lists, np.arange(len(lists.values), dtype=np.float32))
    parts = list(Asked(lists, 4_000, beams).chunks())
    assert len(parts) > 2
    assert np.concatenate([part.history.values for part in parts]).tolist() == lists.values.tolist()
    scores = np.concatenate([part.beams.scores for part in parts if part.beams])
    assert scores.tolist() == beams.scores.tolist()
