"""How examples lie in micro-batches."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidtune.batching.layouts import Example, Layout, idle_micro_batch

PAD = 99


def example(length: int, spans: list[tuple[int, int]], task: int = 0, start: int = 0) -> Example:
    return (
        np.arange(start, start + length, dtype=np.int32),
        np.array(spans, np.int32).reshape(-1, 2),
        task,
    )


def test_right_padding_by_hand() -> None:
    (batch,) = Layout("bucketed", 100, PAD, pass_cost=10).micro_batches(
        [example(3, [(2, 3)], 1), example(4, [(1, 2), (3, 4)], 0, 10)]
    )
    assert batch.input_ids.tolist() == [[10, 11, 12, 13], [0, 1, 2, PAD]]
    assert batch.attention_mask is None
    assert batch.position_ids is None
    assert batch.rows.tolist() == [0, 0, 1]
    assert batch.columns.tolist() == [0, 2, 1], "the state before a label predicts it"
    assert batch.labels.tolist() == [11, 13, 2]
    assert batch.tasks.tolist() == [0, 0, 1]


def test_left_padding_by_hand() -> None:
    (batch,) = Layout("padded", 2, PAD).micro_batches([example(3, [(2, 3)]), example(9, [(8, 9)])])
    assert batch.input_ids.shape == (2, 16), "a multiple of eight"
    assert batch.input_ids[0].tolist() == [PAD] * 13 + [0, 1, 2]
    assert batch.attention_mask is not None
    assert batch.attention_mask.sum(1).tolist() == [3, 9]
    assert batch.position_ids is not None
    assert batch.position_ids[0].tolist() == [0] * 13 + [0, 1, 2]
    assert batch.columns.tolist() == [14, 14]
    assert batch.labels.tolist() == [2, 8]


@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=40),
    st.integers(20, 120),
    st.sampled_from([0, 10, 200]),
)
def test_buckets_hold_every_example_once_within_the_limit(
    lengths: list[int], limit: int, pass_cost: int
) -> None:
    examples = [example(length, [(1, length)], task) for task, length in enumerate(lengths)]
    batches = Layout("bucketed", limit, PAD, pass_cost).micro_batches(examples)
    assert sum(len(batch.labels) for batch in batches) == sum(length - 1 for length in lengths)
    assert sorted({int(t) for batch in batches for t in batch.tasks}) == list(range(len(lengths)))
    assert sum(batch.tokens for batch in batches) == sum(lengths)
    for batch in batches:
        rows, width = batch.input_ids.shape
        assert rows * width <= limit or rows == 1, "only an example over the limit stands alone"


@given(st.lists(st.integers(2, 9), min_size=1, max_size=7), st.integers(8, 40), st.integers(0, 12))
def test_buckets_are_the_cheapest(lengths: list[int], limit: int, pass_cost: int) -> None:
    """Against every way to cut the sorted examples."""

    def cost(groups: list[list[int]]) -> float:
        padded = [len(group) * max(group) for group in groups]
        allowed = all(p <= limit or len(g) == 1 for p, g in zip(padded, groups, strict=True))
        return sum(padded) + pass_cost * len(groups) if allowed else float("inf")

    ordered = sorted(lengths, reverse=True)
    ways = []
    for cuts in product([False, True], repeat=len(ordered) - 1):
        groups = [[ordered[0]]]
        for length, cut in zip(ordered[1:], cuts, strict=True):
            if cut:
                groups.append([])
            groups[-1].append(length)
        ways.append(cost(groups))
    batches = Layout("bucketed", limit, PAD, pass_cost).micro_batches(
        [example(n, [(1, n)]) for n in lengths]
    )
    assert sum(batch.input_ids.size + pass_cost for batch in batches) == min(ways)


def test_trees_by_hand() -> None:
    def made(ids: list[int], start: int, task: int) -> Example:
        return np.array(ids, np.int32), np.array([[start, len(ids)]], np.int32), task

    (batch,) = Layout("tree", 100, PAD, pass_cost=50, token_cost=4).micro_batches(
        [made([5, 6, 8, 9], 2, 0), made([7, 7, 7, 7, 7], 4, 1), made([5, 6, 7, 9], 2, 2)]
    )
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [7, 7, 7, 7]], "closing labels are not read"
    assert batch.position_ids is not None
    assert batch.ends is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 2], [0, 1, 2, 3]]
    assert batch.ends.tolist() == [[4, 4, 3, 4], [4, 4, 4, 4]]
    found = sorted(
        zip(
            *(v.tolist() for v in (batch.tasks, batch.rows, batch.columns, batch.labels)),
            strict=True,
        )
    )
    assert found == [(0, 0, 1, 8), (0, 0, 3, 9), (1, 1, 3, 7), (2, 0, 1, 7), (2, 0, 2, 9)]
    assert batch.tokens == 8


def test_padding_of_trees_sees_itself_alone() -> None:
    examples = [example(3, [(2, 3)]), example(6, [(5, 6)], 0, 50)]
    (batch,) = Layout("tree", 100, PAD, pass_cost=50).micro_batches(examples)
    assert batch.input_ids.tolist() == [[50, 51, 52, 53, 54], [0, 1, PAD, PAD, PAD]]
    assert batch.ends is not None
    assert batch.ends[1].tolist() == [2, 2, 3, 4, 5]
    assert batch.tokens == 7


@pytest.mark.parametrize(("n", "size", "groups"), [(5, 2, [2, 2, 1]), (3, 8, [3]), (4, 4, [4])])
def test_padded_takes_examples_in_order(n: int, size: int, groups: list[int]) -> None:
    batches = Layout("padded", size, PAD).micro_batches([example(3, [(1, 3)]) for _ in range(n)])
    assert [len(batch.input_ids) for batch in batches] == groups


def test_an_idle_micro_batch_has_no_label() -> None:
    batch = idle_micro_batch(example(9, [(4, 9)]), Layout("bucketed", 100, PAD))
    assert batch.input_ids.shape == (1, 2)
    assert len(batch.labels) == len(batch.rows) == len(batch.tasks) == 0
    assert batch.rows.dtype == np.int64


def long_example(length: int, shared: int, number: int) -> Example:
    """Opens with `shared` tokens that all of them open with, and goes on with tokens of its own."""
    ids = np.append(np.arange(shared) % 50, np.full(length - shared, 100 + number)).astype(np.int32)
    return ids, np.array([[length - 4, length]], np.int32), number


def tree(limit: int) -> Layout:
    """As for a model with a hidden size of 128."""
    return Layout("tree", limit, PAD, pass_cost=100, token_cost=12 * 128)


@pytest.mark.parametrize("layout", [tree(8192), Layout("bucketed", 8192, PAD, pass_cost=100)])
def test_long_examples_that_share_nothing_share_passes(layout: Layout) -> None:
    """Five of 1,500 tokens fit 8,192; nothing branches, so that causality alone keeps
    them apart.
    """
    batches = layout.micro_batches([long_example(1500, 0, number) for number in range(7)])
    assert sorted(len(batch.input_ids) for batch in batches) == [2, 5]
    assert all(batch.input_ids.shape[1] == 1500 and batch.ends is None for batch in batches)
    assert sum(len(batch.labels) for batch in batches) == 7 * 4


def test_long_examples_of_one_user_share_their_prefix() -> None:
    examples = [long_example(1500, 1400, number) for number in range(4)]
    (batch,) = tree(8192).micro_batches(examples)
    assert batch.ends is not None
    assert batch.tokens == batch.input_ids.size == 1400 + 4 * 99, (
        "the last token of each is predicted and not read"
    )
    assert sorted(batch.labels.tolist()) == sorted(
        100 + number for number in range(4) for _ in range(4)
    )


def test_rows_of_long_examples_have_a_largest_width() -> None:
    examples = [long_example(3000, 2500, number) for number in range(8)]
    batches = tree(60_000).micro_batches(examples)
    assert max(batch.input_ids.shape[1] for batch in batches) <= 4096
    assert sum(len(batch.labels) for batch in batches) == 8 * 4


@given(
    st.lists(st.tuples(st.integers(1020, 2500), st.integers(0, 1015)), min_size=1, max_size=8),
    st.integers(1100, 9000),
    st.integers(0, 1),
)
def test_long_examples_lie_whole_within_the_limit(
    lengths: list[tuple[int, int]], limit: int, bucketed: int
) -> None:
    layout = Layout("bucketed", limit, PAD, pass_cost=100) if bucketed else tree(limit)
    examples = [
        long_example(length, shared, number) for number, (length, shared) in enumerate(lengths)
    ]
    batches = layout.micro_batches([*examples, example(9, [(4, 9)], len(examples))])
    for batch in batches:
        rows, width = batch.input_ids.shape
        assert rows * width <= limit or rows == 1
    assert sum(len(batch.labels) for batch in batches) == 4 * len(examples) + 5
    assert {int(task) for batch in batches for task in batch.tasks} == set(range(len(examples) + 1))
