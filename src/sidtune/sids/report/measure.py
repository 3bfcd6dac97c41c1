"""Figures of an index: use of the codes, collisions, and how well common prefixes mean
like items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidtune.data.catalogue import prefix_numbers
from sidtune.sids.kmeans import Floats, chunks, sums_by

SID = tuple[str, ...]
SEED = 0
# Neighbours are looked up for so many items, drawn by seed.
QUERIES, NEIGHBOURS = 2_000, 10
# Fewer in a catalogue where they would have more pairs than this with all items.
MOST_PAIRS, PAIRS_AT_ONCE = 2 * 10**8, 1 << 26
COLUMNS_AT_ONCE = 64
PREFIXES_SHOWN, TITLES_SHOWN = 5, 5


def measure(sids: Sequence[SID], titles: Sequence[str], vectors: Floats | None) -> dict[str, Any]:
    """Every figure of an index, as JSON holds it.

    Args:
        sids: SID tokens of each item, n of them; depths may differ.
        titles: of the items; may all be empty.
        vectors: `(n, d)`, by which items are alike; None where there are none.
    """
    groups = prefix_numbers(sids)
    figures: dict[str, Any] = {
        "items": len(sids),
        "levels": [level_use(sids, level) for level in range(groups.shape[1])],
        "collisions": collisions(sids),
    }
    if vectors is not None:
        shuffled = np.random.default_rng(SEED).permutation(len(sids))
        near = neighbours(vectors)
        figures["likeness"] = likeness(groups, vectors, near)
        # The same SIDs dealt out at random: every count stays, all meaning goes.
        figures["likeness_of_random_sids"] = likeness(groups[shuffled], vectors, near)
    if any(titles):
        figures["common_prefixes"] = common_prefixes(sids, titles)
    return figures


def level_use(sids: Sequence[SID], level: int) -> dict[str, Any]:
    """How the tokens of a level are used; items whose SID is shorter do not count.

    `entropy` is in bits, `gini` 0 where all used tokens have equally many items. Codes are numbered
    from 0 where tokens end in a number, so those that lie between and below used ones and have no
    item are `dead`.
    """
    holders = Counter(sid[level] for sid in sids if len(sid) > level)
    used, counts = list(holders), np.array(list(holders.values()))
    shares = counts / counts.sum()
    ascending = np.sort(shares)
    ranks = np.arange(1, len(ascending) + 1)
    numbers = [int(digits) for token in used if (digits := _number(token)) is not None]
    return {
        "used": len(used),
        "dead": max(numbers) + 1 - len(used) if len(numbers) == len(used) else None,
        "entropy": float(-(shares * np.log2(shares)).sum()) + 0.0,
        "gini": float(
            2 * (ranks * ascending).sum() / len(ascending) - (len(ascending) + 1) / len(ascending)
        ),
        "largest": int(counts.max()),
    }


def collisions(sids: Sequence[SID]) -> dict[str, Any]:
    """How many items share their SID, and how many SIDs there are."""
    counts = np.array(list(Counter(sids).values()))
    shared = int(counts[counts > 1].sum())
    return {
        "sids": len(counts),
        "items_sharing": shared,
        "share": 1 - len(counts) / len(sids),
        "most_items_of_a_sid": int(counts.max()),
    }


class Neighbours(NamedTuple):
    """Some items `(queries,)`, and those that are nearest to each `(queries, few)`."""

    asked: NDArray[np.int64]
    near: NDArray[np.int64]


def likeness(
    groups: NDArray[np.int32], vectors: Floats, near: Neighbours
) -> dict[str, list[float]]:
    """By length of prefix: what share of the vectors' variance is left within items of one prefix
    (`distortion`), and what share of an item's nearest neighbours has its prefix
    (`neighbours_kept`).
    """
    centred = vectors - vectors.mean(0, dtype=np.float64).astype(np.float32)
    whole = max(_energy(centred), 1e-12)
    return {
        "distortion": [max(1 - _between(centred, level) / whole, 0.0) for level in groups.T],
        "neighbours_kept": _neighbours_kept(groups, near),
    }


def common_prefixes(sids: Sequence[SID], titles: Sequence[str]) -> list[dict[str, Any]]:
    """The largest groups of items that have all tokens but the last in common, by a few titles."""
    groups: dict[SID, list[int]] = {}
    for item, sid in enumerate(sids):
        groups.setdefault(sid[: max(1, len(sid) - 1)], []).append(item)
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[:PREFIXES_SHOWN]
    return [
        {
            "prefix": "".join(prefix),
            "items": len(members),
            "titles": [titles[item] for item in members[:TITLES_SHOWN]],
        }
        for prefix, members in largest
    ]


def _between(centred: Floats, group: NDArray[np.int32]) -> float:
    """Squared lengths of the means of groups, summed over the vectors."""
    counts = np.bincount(group)
    summing, found = sums_by(group, len(counts)), np.zeros(len(counts))
    for at in range(0, centred.shape[1], COLUMNS_AT_ONCE):
        sums = summing @ centred[:, at : at + COLUMNS_AT_ONCE]
        found += np.einsum("ij,ij->i", sums, sums, dtype=np.float64)
    return float((found / counts).sum())


def _energy(vectors: Floats) -> float:
    return float(np.einsum("ij,ij->", vectors, vectors, dtype=np.float64))


def neighbours(vectors: Floats) -> Neighbours:
    """The nearest other items, by cosine, of items drawn by seed."""
    items = len(vectors)
    few = min(NEIGHBOURS, items - 1)
    lengths = np.sqrt((vectors * vectors).sum(1, keepdims=True))
    directions = vectors / np.maximum(lengths, np.float32(1e-12))
    count = min(QUERIES, items, max(1, MOST_PAIRS // items))
    asked = np.sort(np.random.default_rng(SEED).choice(items, count, replace=False))
    near = np.empty((count, few), np.int64)
    for rows in chunks(count, items, PAIRS_AT_ONCE):
        apart = -directions[asked[rows]] @ directions.T
        apart[np.arange(len(apart)), asked[rows]] = np.inf
        near[rows] = np.argpartition(apart, max(few - 1, 0), axis=1)[:, :few]
    return Neighbours(asked, near)


def _neighbours_kept(groups: NDArray[np.int32], near: Neighbours) -> list[float]:
    if not near.near.size:
        return [1.0] * groups.shape[1]
    shares: list[float] = (groups[near.near] == groups[near.asked][:, None]).mean((0, 1)).tolist()
    return shares


def _number(token: str) -> int | None:
    """The code of a token such as `<a_17>`; None for other tokens."""
    digits = token.rstrip(">").rpartition("_")[2]
    return (
        int(digits)
        if token.endswith(">") and digits.isascii() and digits.isdigit() and len(digits) < 10
        else None
    )
