"""Ragged lists against plain Python lists."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidtune.base import ragged
from sidtune.base.ragged import Ragged, concatenate, repeat, stack

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6)


def plain(ragged: Ragged) -> list[list[int]]:
    return [ragged[row].tolist() for row in range(len(ragged))]


@given(LISTS)
def test_lists_come_back(lists: list[list[int]]) -> None:
    ragged = Ragged.from_lists(lists)
    assert plain(ragged) == lists
    assert ragged.lengths.tolist() == [len(entry) for entry in lists]
    assert ragged.to_arrow().to_pylist() == lists


@given(LISTS, st.data())
def test_take(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8)) if lists else []
    first = data.draw(st.integers(0, len(lists)))
    run = list(range(first, data.draw(st.integers(first, len(lists)))))
    for at_once in (2, 65_536):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ragged, "LISTS_AT_ONCE", at_once)
            for chosen in (rows, run):
                taken = Ragged.from_lists(lists).take(np.array(chosen, np.int64))
                assert plain(taken) == [lists[row] for row in chosen]
                assert taken.offsets[0] == 0
                assert taken.offsets[-1] == len(taken.values)


@given(LISTS, st.data())
def test_drop_front(lists: list[list[int]], data: st.DataObject) -> None:
    counts = [data.draw(st.integers(0, len(entry))) for entry in lists]
    dropped = Ragged.from_lists(lists).drop_front(np.array(counts, np.int64))
    assert plain(dropped) == [entry[count:] for entry, count in zip(lists, counts, strict=True)]


@given(LISTS, st.integers(1, 5))
def test_latest(lists: list[list[int]], longest: int) -> None:
    assert plain(Ragged.from_lists(lists).latest(longest)) == [entry[-longest:] for entry in lists]


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 9), max_size=3)] * 3), max_size=5))
def test_concatenate_joins_row_by_row(rows: list[tuple[list[int], ...]]) -> None:
    parts = [Ragged.from_lists([row[part] for row in rows]) for part in range(3)]
    assert plain(concatenate(parts)) == [list(chain.from_iterable(row)) for row in rows]


@given(LISTS, LISTS)
def test_stack_puts_one_after_the_other(first: list[list[int]], second: list[list[int]]) -> None:
    assert plain(stack([Ragged.from_lists(first), Ragged.from_lists(second)])) == first + second


@given(st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=5))
def test_flatten_turns_items_into_their_tokens(histories: list[list[int]]) -> None:
    tokens = [[10, 11], [], [12]]
    joined = Ragged.from_lists(histories).flatten(Ragged.from_lists(tokens))
    assert plain(joined) == [[t for item in history for t in tokens[item]] for history in histories]


def test_repeat() -> None:
    assert plain(repeat([7, 8], 3)) == [[7, 8]] * 3
    assert plain(repeat([], 2)) == [[], []]
