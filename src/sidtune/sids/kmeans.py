"""k-means in float32: chunks of a matrix product, and sums in the order of the rows, so that runs
agree to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]

ITERATIONS = 50
# Later iterations, which move less than this share of the points, add time and no accuracy.
FEW_MOVED = 0.001
# Distances of so many pairs are held at once: 8 MiB, which caches hold.
PAIRS_AT_ONCE = 1 << 21
# More points than this add time and no accuracy: about 256 for each of 512 centroids.
MOST_POINTS = 131_072
POINTS_PER_CENTROID = 256
# Candidates for each centroid of the start, as in the greedy k-means++ of Arthur and Vassilvitskii
# (2007).
CANDIDATES = 4
# The start is drawn from so many points for each centroid.
POINTS_OF_START = 32


def chunks(rows: int, columns: int, pairs: int = PAIRS_AT_ONCE) -> Iterator[slice]:
    """Runs of rows with at most so many pairs of a row and a column."""
    size = max(1, pairs // max(1, columns))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def distances(points: Floats, centroids: Floats) -> Floats:
    """Squared Euclidean distances `(n, k)`, less each point's own squared length."""
    found: Floats = points @ (-2 * centroids.T)
    found += (centroids * centroids).sum(1)
    return found


def nearest(points: Floats, centroids: Floats) -> Codes:
    """The nearest centroid of every point, `(n,)`; of equally near ones the first."""
    found = np.empty(len(points), np.int32)
    for rows in chunks(len(points), len(centroids)):
        found[rows] = distances(points[rows], centroids).argmin(1)
    return found


def sample(points: Floats, k: int, generator: np.random.Generator) -> Floats:
    """As many points as `k` centroids are fitted on, in their order."""
    return _drawn(points, min(MOST_POINTS, k * POINTS_PER_CENTROID), generator)


def _drawn(points: Floats, most: int, generator: np.random.Generator) -> Floats:
    if len(points) <= most:
        return points
    return points[np.sort(generator.choice(len(points), most, replace=False))]


def kmeans(points: Floats, k: int, generator: np.random.Generator) -> Floats:
    """Centroids `(k, d)` of points `(n, d)` by Lloyd's algorithm.

    Where there are fewer distinct points than centroids, each has its own and the rest are zero.
    """
    distinct = _few_distinct(points, k)
    if distinct is not None:
        padded = np.zeros((k, points.shape[1]), np.float32)
        padded[: len(distinct)] = distinct
        return padded
    centroids = _spread(_drawn(points, k * POINTS_OF_START, generator), k, generator)
    codes = np.full(len(points), -1, np.int32)
    for _ in range(ITERATIONS):
        last, codes = codes, nearest(points, centroids)
        moved = int((last != codes).sum())
        centroids = means(points, codes, k, centroids)
        if moved <= FEW_MOVED * len(points):
            break
    return centroids


def means(points: Floats, codes: Codes, k: int, before: Floats) -> Floats:
    """The mean of each cluster `(k, d)`; an empty one moves to a point that is far from its
    centroid, or to zero where there are fewer points.
    """
    counts = np.bincount(codes, minlength=k)
    sums = sums_by(codes, k) @ points
    found: Floats = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        apart = ((points - before[codes]) ** 2).sum(1)
        far = np.argsort(-apart, kind="stable")[: len(empty)]
        found[empty[: len(far)]] = points[far]
    return found


def sums_by(codes: NDArray[np.integer], k: int) -> scipy.sparse.csr_matrix:
    """What sums the rows `(n, d)` of each of `k` clusters by a product `(k, n) @ (n, d)`."""
    ones, places = np.ones(len(codes), np.float32), np.arange(len(codes) + 1)
    return scipy.sparse.csc_matrix((ones, codes, places), shape=(k, len(codes))).tocsr()


def _few_distinct(points: Floats, k: int) -> Floats | None:
    """The distinct points where there are no more than `k`."""
    if len(points) > k and len(np.unique(points[:: max(1, len(points) // (4 * k))], axis=0)) > k:
        return None
    distinct: Floats = np.unique(points, axis=0)
    return distinct if len(distinct) <= k else None


def _spread(points: Floats, k: int, generator: np.random.Generator) -> Floats:
    """A start of distinct points: each is drawn by its squared distance from those before it, the
    best of a few.
    """
    lengths = (points * points).sum(1)
    centroids = np.empty((k, points.shape[1]), np.float32)
    centroids[0] = points[generator.integers(len(points))]
    apart = np.maximum(distances(points, centroids[:1])[:, 0] + lengths, 0)
    for number in range(1, k):
        drawn = generator.random(CANDIDATES) * apart.sum(dtype=np.float64)
        chosen = np.minimum(
            np.searchsorted(np.cumsum(apart, dtype=np.float64), drawn), len(points) - 1
        )
        closer = np.minimum(
            np.maximum(distances(points, points[chosen]) + lengths[:, None], 0), apart[:, None]
        )
        best = int(closer.sum(0, dtype=np.float64).argmin())
        centroids[number], apart = points[chosen[best]], closer[:, best]
    return centroids
