"""Baselines against hand-worked rankings and a slow reference of dicts and sorted lists."""

import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.rankers import SIMPLE

from sidtune.base.ragged import Ragged, place_of, repeat, row_of
from sidtune.data import popularity as counting
from sidtune.data.catalogue import read_catalogue
from sidtune.data.popularity import popularity
from sidtune.data.rows import Rows, load_rows
from sidtune.metrics.metrics import summarise
from sidtune.metrics.ranks import Ranking
from sidtune.opponents import baselines
from sidtune.opponents.baselines import Baselines, Listing, rank_rows
from sidtune.opponents.popular import Popular

ITEMS = 6
DEPTH = 4
Row = tuple[str, list[int], int]
ITEM = st.integers(0, ITEMS - 1)
ROWS = st.lists(
    st.tuples(st.sampled_from(["u", "v", "w"]), st.lists(ITEM, min_size=1, max_size=4), ITEM),
    min_size=1,
    max_size=6,
)
# Items 0 and 1 are popular, 2 and 3 follow, 4 has one user and 5 none.
TRAIN: list[Row] = [
    ("u", [0, 0], 1),
    ("u", [0, 1], 2),
    ("v", [1], 0),
    ("w", [3, 0], 1),
    ("x", [2, 3], 4),
]


def rows_of(rows: list[Row]) -> Rows:
    users, histories, targets = zip(*rows, strict=True)
    return Rows(pa.array(users), Ragged.from_lists(histories), np.array(targets, np.int32))


def rank_baselines(
    train: Rows,
    history: Ragged,
    target: NDArray[np.integer],
    sid_of: NDArray[np.integer],
    depth: int,
    **restriction: Any,
) -> dict[str, Ranking]:
    """Counted and ranked in one step."""
    found = Baselines.fit(train, None, len(sid_of), **restriction)
    return found.rank(history, target, sid_of, depth, **restriction)


def rank(
    history: list[int], target: int, sid_of: list[int] | None = None, **restriction: object
) -> dict[str, Ranking]:
    """One row against `TRAIN`."""
    numbers = np.array(sid_of or range(ITEMS))
    targets = np.array([target])
    return rank_baselines(
        rows_of(TRAIN), Ragged.from_lists([history]), targets, numbers, DEPTH, **restriction
    )  # type: ignore[arg-type]


def test_popularity_counts_users_not_rows() -> None:
    assert popularity(rows_of(TRAIN), ITEMS).tolist() == [3, 3, 2, 2, 1, 0]


def test_most_popular_first_then_catalogue_order() -> None:
    found = rank([5], 3)["most popular"]
    assert found.items.tolist() == [[0, 1, 2, 3]]
    assert found.item_ranks.tolist() == [4]
    assert rank([0], 5)["most popular"].item_ranks.tolist() == [6], "beyond the depth of the list"


def test_repeat_last_takes_the_latest_place_of_an_item() -> None:
    found = rank([4, 5, 4], 5)["repeat last"]
    assert found.items.tolist() == [[4, 5, 0, 1]]
    assert found.item_ranks.tolist() == [2]


def test_co_occurrence_by_hand() -> None:
    # Users of 4: x. Users of 3: w, x. P(j|4): 2, 3 and 4 have 1. P(j|3): 3 has 1; 0, 1, 2 and 4
    # have 1/2. History 4, 3: half of the first + the second: 3 has 3/2, 2 and 4 have 1, 0 and 1
    # have 1/2, 5 nothing.
    found = rank([4, 3], 1)["co-occurrence"]
    assert found.items.tolist() == [[3, 2, 4, 0]]
    assert found.item_ranks.tolist() == [5]


def test_an_item_without_users_is_its_own_neighbour() -> None:
    assert rank([5], 5)["co-occurrence"].items.tolist() == [[5, 0, 1, 2]]


def test_a_sid_stands_where_its_best_item_does() -> None:
    # 0 and 5 share a SID: the unpopular 5 is the last item, but its SID is the first.
    found = rank([4], 5, sid_of=[7, 3, 4, 5, 6, 7])["most popular"]
    assert found.item_ranks.tolist() == [6]
    assert found.sid_ranks.tolist() == [1]


def test_items_that_may_not_be_listed() -> None:
    allowed = np.array([False, True, False, True, False, False])
    found = rank([1], 0, allowed=allowed)["most popular"]
    assert found.items.tolist() == [[1, 3, -1, -1]]
    assert found.item_ranks.tolist() == [0]
    assert found.sid_ranks.tolist() == [0]


def test_a_sid_is_listed_as_long_as_one_of_its_items_is() -> None:
    found = rank([0], 0, sid_of=[7, 3, 4, 5, 6, 7], exclude_history=True)["most popular"]
    assert found.item_ranks.tolist() == [0]
    assert found.sid_ranks.tolist() == [5]


def test_repeat_often_counts_and_prefers_what_is_later() -> None:
    found = rank([2, 3, 5, 4, 5, 3, 1], 3)["repeat often"]
    # With the usual weights 1 / sqrt(1 + later items): 1, 0.71 + 0.41, 0.58 + 0.45, 0.5, 0.38.
    assert found.items.tolist() == [[3, 5, 1, 4]]
    assert found.item_ranks.tolist() == [1]


def test_without_the_history_repeat_last_is_most_popular() -> None:
    found = rank([0, 3], 1, exclude_history=True)
    assert (
        found["repeat last"].items.tolist()
        == [[1, 2, 4, 5]]
        == found["most popular"].items.tolist()
    )


def test_lists_longer_than_the_catalogue_are_padded() -> None:
    history, target = Ragged.from_lists([[0]]), np.array([0])
    for found in rank_baselines(rows_of(TRAIN), history, target, np.arange(ITEMS), 8).values():
        assert sorted(found.items[0, :ITEMS]) == list(range(ITEMS))
        assert found.items[0, ITEMS:].tolist() == [-1, -1]


def test_ties_of_a_million_items_are_broken() -> None:
    items = 1_000_000
    train = rows_of([("u", [7, 600_000], 600_001), ("v", [7, 600_001], 600_000)])
    history, target = Ragged.from_lists([[7]] * 3), np.array([600_001, 499_999, 500_000])
    found = rank_baselines(train, history, target, np.arange(items), 3)
    assert found["co-occurrence"].items.tolist() == [[7, 600_000, 600_001]] * 3
    for name, ranking in found.items():
        # Two of the three popular items stand behind these in the catalogue.
        first = 2 if name == "transitions" else 3
        assert ranking.item_ranks.tolist() == [first, 500_002, 500_003]
        assert ranking.sid_ranks.tolist() == ranking.item_ranks.tolist()


def slow_popularity(train: list[Row]) -> dict[int, int]:
    return {
        item: len({user for user, past, aim in train if item in [*past, aim]})
        for item in range(ITEMS)
    }


@given(ROWS)
def test_popularity_counted_some_rows_at_a_time(train: list[Row]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "ROWS_AT_ONCE", 2)
        assert popularity(rows_of(train), ITEMS).tolist() == list(slow_popularity(train).values())


def slow_scores(train: list[Row], history: list[int]) -> dict[str, dict[int, float]]:
    owners = {
        item: {user for user, past, aim in train if item in [*past, aim]} for item in range(ITEMS)
    }
    together: dict[int, float] = dict.fromkeys(range(ITEMS), 0.0)
    for age, seen in enumerate(reversed(history)):
        for item in range(ITEMS):
            share = len(owners[seen] & owners[item]) / len(owners[seen]) if owners[seen] else 0
            together[item] += (1 if item == seen else share) / 2**age
    latest = {item: place for place, item in enumerate(history, start=1)}
    return {
        "most popular": dict.fromkeys(range(ITEMS), 0.0),
        "repeat last": {item: latest.get(item, 0) for item in range(ITEMS)},
        "repeat often": slow_recurrence(history, 0.5),
        "co-occurrence": {item: round(score, 9) for item, score in together.items()},
        "transitions": {item: round(score, 9) for item, score in slow_next(train, history).items()},
    }


def slow_recurrence(history: list[int], fade: float) -> dict[int, float]:
    """Items by the sum over their places; of equal ones the latest has the higher score."""
    sums = dict.fromkeys(range(ITEMS), 0.0)
    for age, item in enumerate(reversed(history)):
        sums[item] += (1 + age) ** -fade
    latest = {item: place for place, item in enumerate(history, start=1)}
    order = sorted(range(ITEMS), key=lambda item: (sums[item], latest.get(item, 0)))
    return {item: float(order.index(item)) if item in history else 0.0 for item in range(ITEMS)}


def slow_next(train: list[Row], history: list[int]) -> dict[int, float]:
    """P(j | i) of direct successors, each item of the history weighing 0.3 of the one after it."""
    follows = Counter(slow_pairs(train))
    totals = Counter(source for source, _ in follows.elements())
    scores = dict.fromkeys(range(ITEMS), 0.0)
    for age, seen in enumerate(reversed(history)):
        for item in range(ITEMS):
            if totals[seen]:
                scores[item] += 0.3**age * follows[seen, item] / totals[seen]
    return scores


def slow_pairs(train: list[Row]) -> list[tuple[int, int]]:
    """Of every row the last item and the target, and all neighbours in a user's shortest row."""
    pairs = []
    for user in {row[0] for row in train}:
        rows = sorted((row for row in train if row[0] == user), key=lambda row: len(row[1]))
        pairs += list(pairwise(rows[0][1]))
        pairs += [(past[-1], aim) for _, past, aim in rows]
    return pairs


def slow_order(train: list[Row], scores: dict[int, float], listed: set[int]) -> list[int]:
    popular = slow_popularity(train)
    return sorted(listed, key=lambda item: (-scores[item], -popular[item], item))


@settings(max_examples=150)
@given(
    ROWS,
    ROWS,
    st.lists(st.integers(0, 3), min_size=ITEMS, max_size=ITEMS),
    st.sets(ITEM),
    st.booleans(),
)
def test_slow_reference(
    train: list[Row], rows: list[Row], sid_of: list[int], allowed: set[int], new: bool
) -> None:
    asked = rows_of(rows)
    mask = np.isin(np.arange(ITEMS), list(allowed)) if allowed else None
    found = rank_baselines(
        rows_of(train),
        asked.history,
        asked.target,
        np.array(sid_of),
        DEPTH,
        allowed=mask,
        exclude_history=new,
    )
    assert popularity(rows_of(train), ITEMS).tolist() == list(slow_popularity(train).values())
    for row, (_, history, target) in enumerate(rows):
        listed = (allowed or set(range(ITEMS))) - (set(history) if new else set())
        for name, scores in slow_scores(train, history).items():
            order = slow_order(train, scores, listed)
            sids = list(dict.fromkeys(sid_of[item] for item in order))
            ranking = found[name]
            assert ranking.items[row].tolist() == (order + [-1] * DEPTH)[:DEPTH]
            assert ranking.item_ranks[row] == (order.index(target) + 1 if target in order else 0)
            sid = sid_of[target]
            assert ranking.sid_ranks[row] == (sids.index(sid) + 1 if sid in sids else 0)


def dense(name: str, history: Ragged, target: np.ndarray, listing: Listing) -> Ranking:
    """Most popular and repeat last by a score for every item, as co-occurrence is ranked."""

    def scores(past: Ragged) -> np.ndarray:
        found = np.zeros((len(past), len(listing.tie_break)))
        if name == "repeat last":
            np.maximum.at(found, (row_of(past), past.values), place_of(past) + 1)
        return found

    return rank_rows(name, scores, history, target, listing)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 60), st.booleans(), st.booleans(), st.integers(1, 80)
)
def test_lists_without_scores_equal_those_with_scores(
    seed: int, items: int, restricted: bool, new: bool, depth: int
) -> None:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 30, 8)
    history = Ragged.from_lengths(draw.integers(0, items, lengths.sum()), lengths)
    train = Rows(
        pa.array([str(user) for user in draw.integers(0, 5, 8)]),
        history,
        draw.integers(0, items, 8),
    )
    target, sid_of = draw.integers(0, items, 8), draw.integers(-1, items, items)
    allowed = draw.random(items) < 0.6 if restricted else None
    found = rank_baselines(
        train, history, target, sid_of, depth, allowed=allowed, exclude_history=new
    )
    users = popularity(train, items)
    listing = Listing.of(users, sid_of, depth, allowed=allowed, exclude_history=new)
    for name in ("most popular", "repeat last"):
        right = dense(name, history, target, listing)
        for column in ("sid_ranks", "item_ranks", "items"):
            np.testing.assert_array_equal(
                getattr(found[name], column), getattr(right, column), f"{name}: {column}"
            )


def test_no_row_takes_a_score_for_every_item() -> None:
    """Of a million items, a thousand rows are ranked in the memory of a few of their scores."""
    items, rows = 1_000_000, 1_000
    draw = np.random.default_rng(0)
    popular = Popular.of(draw.integers(0, 1000, items), np.arange(items) // 2, 50, None)
    history = Ragged.from_lengths(draw.integers(0, items, 10 * rows), np.full(rows, 10))
    tracemalloc.start()
    popular.rank_rows(
        "repeat last", history.reversed(), repeat([], rows), draw.integers(0, items, rows)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 8 * items


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    def lists() -> list[list[int]]:
        asked = rows_of(TRAIN)
        found = rank_baselines(asked, asked.history, asked.target, np.arange(ITEMS), DEPTH)
        columns = [np.column_stack([r.sid_ranks, r.item_ranks, r.items]) for r in found.values()]
        return np.concatenate(columns).tolist()  # type: ignore[no-any-return]

    whole = lists()
    monkeypatch.setattr(baselines, "CHUNK_SCORES", 2 * ITEMS)
    assert lists() == whole


def test_figures_on_real_data(amazon: Path) -> None:
    catalogue = read_catalogue(
        *(amazon / f"Industrial_and_Scientific.{kind}.json" for kind in ("item", "index"))
    )
    train, valid = (
        load_rows(path, catalogue) for path in (amazon / "train.csv", amazon / "valid.csv")
    )
    found = rank_baselines(train, valid.history, valid.target, np.arange(len(catalogue.ids)), 10)
    metrics = {name: summarise(ranking.item_ranks, 10) for name, ranking in found.items()}
    hr = {name: round(values["HR@10"].value, 3) for name, values in metrics.items()}
    ndcg = {name: round(values["NDCG@10"].value, 3) for name, values in metrics.items()}
    assert list(hr.values()) == [0.059, 0.085, 0.085, 0.128, 0.123]
    assert list(ndcg.values()) == [0.035, 0.063, 0.062, 0.083, 0.093]
    assert tuple(hr) == SIMPLE
