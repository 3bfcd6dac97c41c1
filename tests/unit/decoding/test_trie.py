"""The trie against a dictionary of prefixes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sidtune.decoding.trie import Trie, build_trie, distinct_sids

NAMES = {f"<{letter}>": 10 + 3 * place for place, letter in enumerate("abcdefg")}
CLOSING = 4
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


def test_many_nodes_are_expanded_at_once() -> None:
    sids = [("<a>", "<b>"), ("<a>", "<c>"), ("<b>", "<d>"), ("<c>",)]
    trie = build_trie(distinct_sids(sids, NAMES)[0], CLOSING)
    children, columns = trie.levels[1].expand(torch.tensor([[0, 1], [1, 0]]))
    tokens = trie.levels[1].tokens[columns].where(children >= 0, -1)
    a, b = [NAMES["<b>"], NAMES["<c>"]], [NAMES["<d>"], -1]
    assert tokens.tolist() == [[a, b], [b, a]]
