"""Balanced residual k-means: no cluster of any level holds more than its share of items, and a
little more.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sidtune.sids.codebooks import Codebooks
from sidtune.sids.kmeans import Codes, Floats, chunks, distances, kmeans, means, sample

# How far above the mean a cluster may grow.
SLACK = 1.1
ITERATIONS = 10


def fit(
    vectors: Floats, sizes: list[int], generator: np.random.Generator
) -> tuple[Codebooks, Codes]:
    """Codebooks of clusters of bounded size, and the codes of all vectors.

    Codes of these vectors are the nearest that have room; vectors that come later take the nearest.
    """
    left, levels = vectors.copy(), []
    codes = np.empty((len(vectors), len(sizes)), np.int32)
    for at, size in enumerate(sizes):
        few = sample(left, size, generator)
        centroids = kmeans(few, size, generator)
        for _ in range(ITERATIONS):
            centroids = means(
                few, assign_bounded(few, centroids, most(len(few), size)), size, centroids
            )
        codes[:, at] = assign_bounded(left, centroids, most(len(left), size))
        levels.append(centroids)
        left -= centroids[codes[:, at]]
    return Codebooks(levels), codes


def most(items: int, size: int) -> int:
    """The most items that a cluster may hold."""
    return math.ceil(SLACK * items / size)


def assign_bounded(points: Floats, centroids: Floats, bound: int) -> Codes:
    """The cluster of each point, `(n,)`, none with more than `bound`.

    In each round the points that have none ask the nearest cluster with room, which takes the
    nearest of them.
    """
    found = np.full(len(points), -1, np.int32)
    room = np.full(len(centroids), bound)
    waiting = np.arange(len(points))
    while len(waiting):
        wanted, cost = _nearest_open(points[waiting], centroids, room > 0)
        order = np.lexsort((waiting, cost, wanted))
        first = np.searchsorted(wanted[order], wanted[order])
        taken = order[np.arange(len(order)) - first < room[wanted[order]]]
        found[waiting[taken]] = wanted[taken]
        room -= np.bincount(wanted[taken], minlength=len(room))
        waiting = np.delete(waiting, taken)
    return found


def _nearest_open(
    points: Floats, centroids: Floats, is_open: NDArray[np.bool_]
) -> tuple[Codes, Floats]:
    """The nearest open cluster of each point, and its squared distance."""
    wanted, cost = np.empty(len(points), np.int32), np.empty(len(points), np.float32)
    for rows in chunks(len(points), len(centroids)):
        apart = distances(points[rows], centroids)
        apart[:, ~is_open] = np.inf
        wanted[rows] = apart.argmin(1)
        cost[rows] = apart.min(1) + (points[rows] ** 2).sum(1)
    return wanted, cost
