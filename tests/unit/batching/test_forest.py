"""Prefix trees against the obvious ones made of dictionaries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidtune.batching.forest import Forest, grow, lexicographic

SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=20)


def grown(
    sequences: list[list[int]], token_cost: float = 1e9, widest: int = 10**6
) -> tuple[Forest, list[list[int]]]:
    arrays = [np.array(sequence, np.int32) for sequence in sequences]
    order = lexicographic(arrays)
    return grow([arrays[i] for i in order], token_cost, widest), [sequences[i] for i in order]


def test_by_hand() -> None:
    forest, ordered = grown([[1, 2, 5], [1, 2, 3, 4], [1, 6], [7], [1, 2, 3, 4]])
    assert ordered == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 5], [1, 6], [7]]
    assert forest.row.tolist() == [0, 0, 0, 0, 1], "where nothing is shared, a row of its own"
    assert forest.tokens.tolist() == [[1, 2, 3, 4, 5, 6], [7, -1, -1, -1, -1, -1]]
    assert forest.depths.tolist() == [[0, 1, 2, 3, 2, 1], [0, -1, -1, -1, -1, -1]]
    assert forest.ends.tolist() == [[6, 5, 4, 4, 5, 6], [1, -1, -1, -1, -1, -1]]
    assert forest.node.tolist() == [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [0, 1, 4, -1],
        [0, 5, -1, -1],
        [0, -1, -1, -1],
    ]
    assert forest.widths.tolist() == [6, 1]


def test_a_row_is_closed_where_attention_would_cost_more_than_the_shared_tokens() -> None:
    alike = [[1, 2, 3, 4, 5, last] for last in range(30)]
    whole, _ = grown(alike, token_cost=1e9)
    cut, _ = grown(alike, token_cost=6)
    assert len(whole.tokens) == 1
    assert whole.widths.tolist() == [35]
    # Joining a row of w nodes costs (w + 1)² - w² - 6² = 2w - 35 pairs, and saves five tokens of 6
    # pairs: up to 32.
    assert cut.widths.tolist() == [33, 7]


def test_rows_are_no_wider_than_allowed_unless_one_sequence_is() -> None:
    forest, _ = grown([[1, 2, 3], [1, 2, 4], [1, 2, 5], [9] * 8], widest=4)
    assert forest.widths.tolist() == [4, 3, 8]


@given(SEQUENCES, st.sampled_from([0.0, 3.0, 1e9]), st.sampled_from([4, 12, 10**6]))
def test_every_sequence_reads_its_own_tokens_and_nothing_else(
    sequences: list[list[int]], token_cost: float, widest: int
) -> None:
    forest, ordered = grown(sequences, token_cost, widest)
    place = np.arange(forest.tokens.shape[1])
    for index, sequence in enumerate(ordered):
        row, nodes = forest.row[index], forest.node[index]
        assert (nodes[len(sequence) :] == -1).all()
        nodes = nodes[: len(sequence)]
        assert forest.tokens[row, nodes].tolist() == sequence
        assert forest.depths[row, nodes].tolist() == list(range(len(sequence)))
        for depth, node in enumerate(nodes):
            seen = (place <= node) & (node < forest.ends[row])
            assert np.flatnonzero(seen).tolist() == nodes[: depth + 1].tolist()


@given(SEQUENCES)
def test_no_prefix_is_held_twice_in_a_row(sequences: list[list[int]]) -> None:
    forest, ordered = grown(sequences, token_cost=2.0)
    for row in range(len(forest.tokens)):
        prefixes = {
            tuple(sequence[: end + 1])
            for sequence, own in zip(ordered, forest.row, strict=True)
            if own == row
            for end in range(len(sequence))
        }
        assert forest.widths[row] == len(prefixes)


@pytest.mark.parametrize("large", [255, 256, 65_536, 151_935])
def test_order_is_that_of_numbers_not_of_bytes(large: int) -> None:
    arrays = [np.array(s, np.int32) for s in ([large, 1], [2, 9], [large], [2])]
    assert lexicographic(arrays) == [3, 1, 2, 0]
