"""Collisions: hand-worked cases, exhaustive search as reference, and what must hold for
any input.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidtune.base.errors import UserError
from sidtune.sids.codebooks import Codebooks
from sidtune.sids.collisions import RULES, reassign
from sidtune.sids.collisions.reassign import resolve, resolve_beside


def line(*levels: list[float]) -> Codebooks:
    return Codebooks([np.array(level, np.float32)[:, None] for level in levels])


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_within_a_prefix_the_sum_of_distances_is_least() -> None:
    books = line([0, 100], [0, 1, 5])
    latents = column(0.1, 0.2, 101)
    outcome = resolve(latents, books, books.encode(latents))
    # Both want the code 0; the one that loses less goes to 1.
    assert outcome.codes.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert (outcome.moved, outcome.surplus) == (1, 0)


def test_surplus_goes_to_the_nearest_prefix_with_room() -> None:
    books = line([0, 100, 10], [0, 1])
    latents = column(0, 0, 1, 3)
    outcome = resolve(latents, books, books.encode(latents))
    # Four items for two codes of the prefix 0: the two nearest to it stay, the others go to 10, not
    # to 100.
    assert outcome.codes[:, 0].tolist() == [0, 0, 2, 2]
    assert len({tuple(sid) for sid in outcome.codes.tolist()}) == 4
    assert outcome.surplus == 2


def test_surplus_finds_the_prefix_that_comparing_all_finds() -> None:
    generator = np.random.default_rng(0)
    books = Codebooks([generator.normal(size=(size, 3)).astype(np.float32) for size in (4, 3, 1)])
    latent = generator.normal(size=(1, 3)).astype(np.float32)
    nearest = books.encode(latent)
    found = resolve_beside(latent, books, nearest, nearest).codes[0]
    cost = {
        (a, b): float(((latent[0] - books.levels[0][a] - books.levels[1][b]) ** 2).sum())
        for a in range(4)
        for b in range(3)
        if [a, b] != nearest[0, :2].tolist()
    }
    assert tuple(found[:2].tolist()) == min(cost, key=cost.__getitem__)


@given(st.integers(0, 2**31), st.integers(2, 24), st.booleans())
def test_surplus_items_choose_one_after_the_other(seed: int, items: int, whole: bool) -> None:
    surplus_as_by_comparing_all(seed, items, (4, 3, 2), whole)


@given(st.integers(0, 2**31), st.integers(100, 400), st.booleans())
@settings(max_examples=20)
def test_surplus_items_choose_among_many_prefixes(seed: int, items: int, whole: bool) -> None:
    surplus_as_by_comparing_all(seed, items, (32, 8, 2), whole)


def surplus_as_by_comparing_all(
    seed: int, items: int, sizes: tuple[int, int, int], whole: bool
) -> None:
    """Items in a heap, so that most find no room; of whole numbers, so that many prefixes are
    equally near.
    """
    generator = np.random.default_rng(seed)
    books = Codebooks([generator.normal(size=(size, 3)).astype(np.float32) for size in sizes])
    latents = (0.3 * generator.normal(size=(items, 3))).astype(np.float32)
    if whole:
        books = Codebooks([np.round(2 * level) for level in books.levels])
        latents = np.round(4 * latents)
    nearest = books.encode(latents)
    found = resolve(latents, books, nearest)
    firsts, seconds = (level.astype(np.float64) for level in books.levels[:2])
    sums = firsts[:, None] + seconds
    costs = ((latents[:, None, None].astype(np.float64) - sums) ** 2).sum(-1)
    # Of equally near prefixes: the first code that is nearer with its shortest sum, then the lower
    # code.
    ranks = (sums**2).sum(-1).min(1) - 2 * latents.astype(np.float64) @ firsts.T
    prefixes = {item: (int(a), int(b)) for item, (a, b, _) in enumerate(nearest)}
    members = {
        prefix: sorted(
            (item for item, own in prefixes.items() if own == prefix),
            key=lambda item, prefix=prefix: costs[item][prefix],
        )
        for prefix in product(range(sizes[0]), range(sizes[1]))
    }
    surplus = sorted(item for inside in members.values() for item in inside[sizes[2] :])
    room = {prefix: max(0, sizes[2] - len(inside)) for prefix, inside in members.items()}
    for item in surplus:
        choices = [prefix for prefix, left in room.items() if left]
        prefixes[item] = min(
            choices, key=lambda prefix: (costs[item][prefix], ranks[item, prefix[0]], prefix)
        )
        room[prefixes[item]] -= 1
    assert found.surplus == len(surplus)
    assert [tuple(row) for row in found.codes[:, :2].tolist()] == list(prefixes.values())


def least(latents: np.ndarray, books: Codebooks) -> float:
    """The least sum of squared distances over all ways to give distinct last codes, one level."""
    choices = permutations(books.levels[0][:, 0], len(latents))
    return min(float(((latents[:, 0] - np.array(choice)) ** 2).sum()) for choice in choices)


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_assignment_is_exact(seed: int, items: int) -> None:
    generator = np.random.default_rng(seed)
    books, latents = line(generator.normal(size=6).tolist()), column(*generator.normal(size=items))
    codes = resolve(latents, books, books.encode(latents)).codes
    found = float(((latents - books.levels[0][codes[:, 0]]) ** 2).sum())
    assert found == pytest.approx(least(latents, books), rel=1e-3, abs=1e-4)


@given(
    st.integers(0, 2**31),
    st.integers(1, 64),
    st.sampled_from([[64], [8, 8], [4, 4, 4], [4, 4, 2, 2]]),
)
def test_all_sids_differ_also_from_those_that_are_taken(
    seed: int, items: int, sizes: list[int]
) -> None:
    generator = np.random.default_rng(seed)
    books = Codebooks([generator.normal(size=(size, 2)).astype(np.float32) for size in sizes])
    latents = generator.integers(0, 3, (items, 2)).astype(np.float32)
    cut = items // 3
    first = resolve(latents[:cut], books, books.encode(latents[:cut])).codes
    rest = resolve_beside(latents[cut:], books, books.encode(latents[cut:]), first).codes
    together = np.concatenate([first, rest])
    assert len(np.unique(together, axis=0)) == items
    assert (together >= 0).all()
    assert (together < np.array(sizes)).all()


def test_more_items_than_sids_are_refused() -> None:
    books = line([0, 1], [0, 1])
    with pytest.raises(UserError, match=r"2 × 2 = 4 SIDs, and 5 items need one each"):
        resolve(column(0, 1, 2, 3, 4), books, np.zeros((5, 2), np.int32))


def test_an_item_that_is_alone_keeps_the_nearest_code() -> None:
    generator = np.random.default_rng(0)
    books = Codebooks([generator.normal(size=(16, 4)).astype(np.float32) for _ in range(3)])
    latents = generator.normal(size=(50, 4)).astype(np.float32)
    codes = books.encode(latents)
    alone = [at for at, sid in enumerate(codes) if (codes[:, :2] == sid[:2]).all(1).sum() == 1]
    assert np.array_equal(resolve(latents, books, codes).codes[alone], codes[alone])


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    books = Codebooks([generator.normal(size=(size, 3)).astype(np.float32) for size in (8, 4, 8)])
    latents = generator.normal(size=(200, 3)).astype(np.float32)
    codes = books.encode(latents)
    found = []
    for threads in (1, 3, 64):
        monkeypatch.setattr(reassign, "cores", lambda threads=threads: threads)
        found.append(resolve(latents, books, codes).codes)
    assert len(np.unique(found[0], axis=0)) == len(latents)
    assert all(np.array_equal(each, found[0]) for each in found)


def test_one_more_token_counts_the_items_of_a_shared_sid() -> None:
    codes = np.array([[1, 2], [3, 4], [1, 2], [1, 2]], np.int32)
    outcome = RULES["extra_token"](column(0, 0, 0, 0), line([0] * 4, [0] * 5), codes)
    assert outcome.extra.tolist() == [0, -1, 1, 2]
    assert np.array_equal(outcome.codes, codes)


def test_keeping_changes_nothing() -> None:
    codes = np.array([[1, 2], [1, 2]], np.int32)
    outcome = RULES["keep"](column(0, 0), line([0] * 2, [0] * 3), codes)
    assert (outcome.codes.tolist(), outcome.extra.tolist()) == (codes.tolist(), [-1, -1])
