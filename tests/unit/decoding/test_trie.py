"""The trie against a dictionary of prefixes."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sidtune.decoding.search import _without
from sidtune.decoding.trie import Trie, build_trie, distinct_sids

NAMES = {f"<{letter}>": 10 + 3 * place for place, letter in enumerate("abcdefg")}
CLOSING = 4
MANY = NAMES | {f"<{place}>": 100 + place for place in range(300)}
SIDS = st.lists(
    st.lists(st.sampled_from(list(NAMES)), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=40,
)


def walk(trie: Trie, node: int = 0, path: tuple[int, ...] = ()) -> dict[tuple[int, ...], int]:
    """Every path of a trie with the number of the SID that ends there, read off with `expand`
    alone.
    """
    found: dict[tuple[int, ...], int] = {}
    level = trie.levels[len(path)]
    children, columns = level.expand(torch.tensor([[node]]))
    for child, column in zip(children[0, 0].tolist(), columns[0, 0].tolist(), strict=True):
        if child >= 0:
            step = (*path, int(level.tokens[column]))
            if level.sids[child] >= 0:
                found[step] = int(level.sids[child])
            else:
                found |= walk(trie, child, step)
    return found


@given(SIDS)
def test_paths_and_numbers_are_those_of_the_catalogue(sids: list[tuple[str, ...]]) -> None:
    distinct, numbers = distinct_sids(sids, NAMES)
    expected = {tuple(NAMES[token] for token in sid) for sid in sids}
    assert [tuple(distinct[row].tolist()) for row in range(len(distinct))] == sorted(expected)
    for sid, number in zip(sids, numbers, strict=True):
        assert distinct[number].tolist() == [NAMES[token] for token in sid]
    begins = {a for a in expected if any(b != a and b[: len(a)] == a for b in expected)}
    paths = {
        (*sid, CLOSING) if sid in begins else sid: place
        for place, sid in enumerate(sorted(expected))
    }
    trie = build_trie(distinct, CLOSING)
    assert trie.count == len(expected)
    assert walk(trie) == paths


@given(SIDS)
def test_levels_say_what_they_hold(sids: list[tuple[str, ...]]) -> None:
    trie = build_trie(distinct_sids(sids, NAMES)[0], CLOSING)
    for level in trie.levels:
        widths = level.starts.diff()
        assert level.fan_out == widths.max()
        assert level.complete == bool((level.sids >= 0).any())
        assert level.open == bool((level.sids < 0).any())
        assert level.tokens.tolist() == sorted(set(level.tokens.tolist()))
    assert not trie.levels[-1].open
    assert sum(int((level.sids >= 0).sum()) for level in trie.levels) == trie.count


class Sizes(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is made meanwhile."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, one.numel())
        return made


def test_many_excluded_sids_take_no_memory_for_their_pairs() -> None:
    distinct, _ = distinct_sids([("<a>", f"<{place}>") for place in range(300)], MANY)
    level = build_trie(distinct, CLOSING).levels[0]
    with Sizes() as sizes:
        exhausted = level.exhausted(torch.arange(300)[None])
    assert exhausted.tolist() == [[0] * 300]
    with Sizes() as again:
        children = torch.zeros(1, 300, dtype=torch.long)
        assert _without(torch.zeros(1, 300), children, exhausted).isneginf().all()
    assert max(sizes.largest, again.largest) <= 300


@given(st.lists(st.integers(0, 5), max_size=6, unique=True), st.integers(0, 2))
def test_what_is_exhausted_is_what_has_no_sid_left(excluded: list[int], padding: int) -> None:
    sids = [
        ("<a>", "<b>"),
        ("<a>", "<c>"),
        ("<b>",),
        ("<c>", "<a>"),
        ("<c>", "<b>"),
        ("<c>", "<c>"),
    ]
    levels = build_trie(distinct_sids(sids, NAMES)[0], CLOSING).levels
    asked = torch.tensor([[*excluded, *[-1] * (padding + 1)]])
    expected = [
        {0} if {0, 1} <= {*excluded} else set(),
        {1} if 2 in excluded else set(),
        {2} if {3, 4, 5} <= {*excluded} else set(),
    ]
    assert {*levels[0].exhausted(asked)[0].tolist()} - {-2} == set().union(*expected)


def test_many_nodes_are_expanded_at_once() -> None:
    sids = [("<a>", "<b>"), ("<a>", "<c>"), ("<b>", "<d>"), ("<c>",)]
    trie = build_trie(distinct_sids(sids, NAMES)[0], CLOSING)
    children, columns = trie.levels[1].expand(torch.tensor([[0, 1], [1, 0]]))
    tokens = trie.levels[1].tokens[columns].where(children >= 0, -1)
    a, b = [NAMES["<b>"], NAMES["<c>"]], [NAMES["<d>"], -1]
    assert tokens.tolist() == [[a, b], [b, a]]
