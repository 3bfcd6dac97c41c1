"""Metrics against hand-worked values, published intervals and torchmetrics."""

from collections.abc import Callable
from math import log2, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from sidtune.base.ragged import Ragged
from sidtune.metrics.metrics import (
    breakdown,
    coverage,
    gains,
    history_groups,
    hits,
    mean,
    metric_names,
    per_row,
    popularity_groups,
    proportion,
    reciprocal_ranks,
    repeated,
    summarise,
)

RANKS = np.array([1, 2, 3, 0, 11], np.int64)
UNIT = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_values_of_each_row() -> None:
    assert hits(RANKS, 2).tolist() == [1, 1, 0, 0, 0]
    assert gains(RANKS, 3).tolist() == [1, 1 / log2(3), 1 / 2, 0, 0]
    assert reciprocal_ranks(RANKS, 10).tolist() == [1, 1 / 2, 1 / 3, 0, 0]
    assert reciprocal_ranks(RANKS, 11).tolist() == [1, 1 / 2, 1 / 3, 0, 1 / 11]


def test_summary_by_hand() -> None:
    values = {name: estimate.value for name, estimate in summarise(RANKS, 20).items()}
    gain = 1 + 1 / log2(3) + 1 / 2
    expected = {
        "HR@1": 1 / 5,
        "NDCG@1": 1 / 5,
        "HR@3": 3 / 5,
        "NDCG@3": gain / 5,
        "HR@5": 3 / 5,
        "NDCG@5": gain / 5,
        "HR@10": 3 / 5,
        "NDCG@10": gain / 5,
        "HR@20": 4 / 5,
        "NDCG@20": (gain + 1 / log2(12)) / 5,
        "MRR": (1 + 1 / 2 + 1 / 3 + 1 / 11) / 5,
    }
    assert list(values) == list(expected)
    assert values == pytest.approx(expected)


def test_the_depth_cuts_the_list() -> None:
    short = summarise(RANKS, 10)
    assert "HR@10" in short
    assert "HR@20" not in short
    assert short["MRR"].value == pytest.approx((1 + 1 / 2 + 1 / 3) / 5)
    assert metric_names(4) == ["HR@1", "NDCG@1", "HR@3", "NDCG@3", "MRR"]


@pytest.mark.parametrize("name", metric_names(20))
def test_the_mean_of_the_rows_is_the_summary(name: str) -> None:
    assert per_row(RANKS, name, 20).mean() == pytest.approx(summarise(RANKS, 20)[name].value)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (hits, retrieval_hit_rate),
        (gains, retrieval_normalized_dcg),
        (reciprocal_ranks, retrieval_reciprocal_rank),
    ],
)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_torchmetrics_agrees(
    ours: Callable[..., np.ndarray], theirs: Callable[..., torch.Tensor], k: int
) -> None:
    ranks = np.arange(13)
    scores = 1 / torch.arange(1.0, 13.0)
    expected = [theirs(scores, torch.arange(1, 13) == rank, top_k=k).item() for rank in ranks]
    assert ours(ranks, k).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ones", "rows", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(ones: int, rows: int, low: float, high: float) -> None:
    estimate = proportion(np.repeat([1.0, 0.0], [ones, rows - ones]))
    assert estimate.value == ones / rows
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)


def test_where_nothing_is_found_every_interval_is_wilsons() -> None:
    summary = summarise(np.zeros(20, np.int64), 10)
    assert summary["HR@10"].high == pytest.approx(0.1611, abs=5e-5)
    assert summary["NDCG@10"].high == pytest.approx(summary["HR@10"].high), (
        "none was found, which says as little of both"
    )
    assert summary["MRR"].high == pytest.approx(summary["HR@10"].high)


def test_interval_of_a_mean_by_hand() -> None:
    estimate = mean(np.array([0.4, 0.6, 0.4, 0.6]))
    half = 1.959964 * sqrt(4 * 0.1**2 / 3) / sqrt(4)
    assert estimate.value == pytest.approx(0.5)
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert mean(np.array([0.0, 1.0])) == mean(np.array([1.0, 0.0]))
    assert (mean(np.array([0.0, 1.0])).low, mean(np.array([0.0, 1.0])).high) == (
        0,
        1,
    ), "cut to [0, 1]"


def test_one_row_tells_nothing_of_the_spread() -> None:
    lone = mean(np.array([0.3]))
    # Wilson's upper end for none of one is z² / (1 + z²) = 3.8415 / 4.8415 = 0.7935.
    assert (lone.low, lone.high) == pytest.approx((0.3 * 0.2065, 0.3 + 0.7 * 0.7935), abs=1e-4)


@pytest.mark.parametrize("estimate", [mean, proportion])
def test_no_rows_is_our_mistake(estimate: Callable[[np.ndarray], object]) -> None:
    with pytest.raises(AssertionError, match="no rows"):
        estimate(np.empty(0))


@given(UNIT)
def test_a_mean_lies_in_its_interval(values: list[float]) -> None:
    estimate = mean(np.array(values))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60))
def test_a_share_lies_in_its_interval_which_is_never_empty(values: list[float]) -> None:
    estimate = proportion(np.array(values))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high


def test_breakdown_leaves_out_empty_groups() -> None:
    groups = breakdown(RANKS, 50, np.array([0, 0, 2, 2, 2]), ["a", "b", "c"])
    assert [(group.name, group.rows) for group in groups] == [("a", 2), ("c", 3)]
    assert [group.hr.value for group in groups] == [1, pytest.approx(1 / 3)]
    assert [group.ndcg.value for group in groups] == pytest.approx(
        [(1 + 1 / log2(3)) / 2, (1 / 2) / 3]
    )
    assert groups[1].hr == proportion(np.array([1.0, 0.0, 0.0]))


def test_breakdown_of_short_lists_is_at_their_depth() -> None:
    (group,) = breakdown(RANKS, 2, np.zeros(5, np.int64), ["all"])
    assert group.hr.value == 2 / 5


def test_history_groups() -> None:
    groups, names = history_groups(np.array([1, 2, 3, 4, 6, 7, 10, 11, 400]))
    assert [names[group] for group in groups] == [
        "1",
        "2–3",
        "2–3",
        "4–6",
        "4–6",
        "7–10",
        "7–10",
        "over 10",
        "over 10",
    ]


def test_popularity_groups() -> None:
    groups, names = popularity_groups(np.array([0, 1, 4, 5, 19, 20, 99, 100, 5000]))
    expected = [
        "unseen",
        "1–4",
        "1–4",
        "5–19",
        "5–19",
        "20–99",
        "20–99",
        "100 and over",
        "100 and over",
    ]
    assert [names[group] for group in groups] == expected


def test_coverage() -> None:
    lists = np.array([[0, 3, -1], [3, -1, -1]])
    assert coverage(lists, 8) == 2 / 8
    assert coverage(np.full((2, 3), -1), 8) == 0


def test_repeated_by_hand() -> None:
    lists = np.array([[0, 3, -1], [3, 2, 1]])
    assert repeated(lists, Ragged.from_lists([[3, 3, 9], [0, 9]])) == 1 / 5
    assert repeated(np.full((2, 3), -1), Ragged.from_lists([[3], [0]])) == 0


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-1, 5), min_size=3, max_size=3),
            st.lists(st.integers(0, 7), max_size=4),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_repeated_against_a_loop(rows: list[tuple[list[int], list[int]]]) -> None:
    entries = [item in history for listed, history in rows for item in listed if item >= 0]
    expected = sum(entries) / len(entries) if entries else 0
    lists, histories = (
        np.array([listed for listed, _ in rows]),
        Ragged.from_lists([history for _, history in rows]),
    )
    assert repeated(lists, histories) == pytest.approx(expected)
