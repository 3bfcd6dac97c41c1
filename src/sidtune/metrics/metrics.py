"""Metrics of rank arrays: HR, NDCG and MRR with intervals, by group, and what the lists are made
of.

A rank array is `(rows,)` int64: the target's place in the row's list, from 1; 0 where it is not in
the list (a miss). Rows are never zero in number: there is nothing to say about none, and whoever
calls has rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, row_of

CUTOFFS = (1, 3, 5, 10, 20, 50)
GROUP_CUTOFF = 10
# Half the width of a 95% interval, in standard errors.
Z = NormalDist().inv_cdf(0.975)
# The least value of every group but the first, and the groups' names.
HISTORY_EDGES, HISTORY_NAMES = (2, 4, 7, 11), ("1", "2–3", "4–6", "7–10", "over 10")
POPULARITY_EDGES = (1, 5, 20, 100)
POPULARITY_NAMES = ("unseen", "1–4", "5–19", "20–99", "100 and over")


@dataclass(frozen=True)
class Estimate:
    """A mean over rows and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """HR@K and NDCG@K of some of the rows, K being 10 or, where lists are shorter, their depth."""

    name: str
    rows: int
    hr: Estimate
    ndcg: Estimate


def hits(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """1 where the target is among the first `k`, `(rows,)`; their mean is HR@k."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def gains(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """NDCG@k of each row, `(rows,)`: 1 / log2(rank + 1) among the first `k`, otherwise 0.

    Järvelin & Kekäläinen (2002) with one relevant item, whose ideal DCG is 1.
    """
    discounts: NDArray[np.float64] = np.log2(np.maximum(ranks, 1) + 1)
    return hits(ranks, k) / discounts


def reciprocal_ranks(ranks: NDArray[np.int64], depth: int) -> NDArray[np.float64]:
    """1 / rank within the first `depth`, otherwise 0, `(rows,)`; their mean is the MRR (Voorhees,
    1999).
    """
    return hits(ranks, depth) / np.maximum(ranks, 1)


def metric_names(depth: int) -> list[str]:
    """The metrics that lists of this depth have: HR@K and NDCG@K at each cutoff, then MRR."""
    names = [f"{metric}@{k}" for k in CUTOFFS if k <= depth for metric in ("HR", "NDCG")]
    return [*names, "MRR"]


def per_row(ranks: NDArray[np.int64], name: str, depth: int) -> NDArray[np.float64]:
    """Each row's value of one of the `metric_names`, `(rows,)`; ranks beyond `depth` are misses."""
    if name == "MRR":
        return reciprocal_ranks(ranks, depth)
    metric, _, cutoff = name.partition("@")
    k = int(cutoff)
    assert k <= depth, f"{name} of lists of {depth}"
    return {"HR": hits, "NDCG": gains}[metric](ranks, k)


def summarise(ranks: NDArray[np.int64], depth: int) -> dict[str, Estimate]:
    """All `metric_names` of lists of this depth; ranks beyond it are misses."""
    return {name: _estimate(ranks, name, depth) for name in metric_names(depth)}


def proportion(values: NDArray[np.float64]) -> Estimate:
    """The share of ones among zeros and ones, `(rows,)`, with the score interval of
    Wilson (1927).
    """
    n = len(values)
    assert n, "no rows"
    share = float(values.mean())
    # Imported where it is needed: it takes half a second.
    from scipy.stats import binomtest

    interval = binomtest(round(float(values.sum())), n).proportion_ci(0.95, "wilson")
    # Rounding must not push an end past the share itself, which it touches at 0 and at 1.
    return Estimate(share, min(float(interval.low), share), max(float(interval.high), share))


def mean(values: NDArray[np.float64]) -> Estimate:
    """The mean of values between 0 and 1, `(rows,)`, with the interval of the normal approximation,
    cut to [0, 1].

    Rows that all agree say nothing about the spread: as far as rows may lie elsewhere by Wilson's
    interval, so may the mean.
    """
    n = len(values)
    assert n, "no rows"
    middle = float(values.mean())
    if np.ptp(values) == 0:
        elsewhere = proportion(np.zeros(n)).high
        return Estimate(middle, middle * (1 - elsewhere), middle + (1 - middle) * elsewhere)
    half = Z * float(values.std(ddof=1)) / np.sqrt(n)
    return Estimate(middle, float(max(0.0, middle - half)), float(min(1.0, middle + half)))


def breakdown(
    ranks: NDArray[np.int64], depth: int, groups: NDArray[np.integer], names: Sequence[str]
) -> list[Group]:
    """HR and NDCG of each group of rows.

    Args:
        ranks: `(rows,)`.
        depth: of the lists; ranks beyond it are misses.
        groups: `(rows,)`, each row's group as an index into `names`.
        names: of the groups; one that has no rows is left out.
    """
    k = min(GROUP_CUTOFF, depth)
    members = [(name, ranks[groups == group]) for group, name in enumerate(names)]
    return [
        Group(name, len(chosen), proportion(hits(chosen, k)), mean(gains(chosen, k)))
        for name, chosen in members
        if len(chosen)
    ]


def history_groups(lengths: NDArray[np.integer]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Group of each row by the length of its history, `(rows,)`, and the groups' names."""
    return np.searchsorted(HISTORY_EDGES, lengths, side="right"), HISTORY_NAMES


def popularity_groups(counts: NDArray[np.integer]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Group of each row by its target's number of training users, `(rows,)`, and the
    groups' names.
    """
    return np.searchsorted(POPULARITY_EDGES, counts, side="right"), POPULARITY_NAMES


def coverage(lists: NDArray[np.integer], items: int) -> float:
    """Share of the catalogue's `items` that stand in at least one list; `lists` `(rows, k)`, padded
    with -1.
    """
    return len(np.unique(lists[lists >= 0])) / items


def repeated(lists: NDArray[np.integer], history: Ragged) -> float:
    """Share of the entries of `lists`, `(rows, k)` padded with -1, that stand in the row's own
    history.
    """
    filled = lists >= 0
    if not filled.any():
        return 0.0
    # A row and an item become one number, so that one sorted search answers for all rows.
    items = 1 + max(int(lists.max()), int(history.values.max(initial=0)))
    rows = np.arange(len(lists))
    listed = (rows[:, None] * items + lists)[filled]
    owned = row_of(history) * items + history.values
    return float(np.isin(listed, owned).mean())


def _estimate(ranks: NDArray[np.int64], name: str, depth: int) -> Estimate:
    values = per_row(ranks, name, depth)
    return proportion(values) if name.startswith("HR") else mean(values)
