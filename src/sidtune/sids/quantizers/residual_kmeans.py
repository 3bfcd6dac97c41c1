"""Residual k-means: each level clusters what the levels before it left over."""

from __future__ import annotations

import numpy as np

from sidtune.sids.codebooks import Codebooks
from sidtune.sids.kmeans import Codes, Floats, kmeans, nearest, sample


def fit(
    vectors: Floats, sizes: list[int], generator: np.random.Generator
) -> tuple[Codebooks, Codes]:
    """Codebooks fitted level by level, on a sample where there are many vectors, and the codes of
    all of them.
    """
    books = Codebooks(residual_levels(vectors, sizes, generator))
    return books, books.encode(vectors)


def residual_levels(
    vectors: Floats, sizes: list[int], generator: np.random.Generator
) -> list[Floats]:
    """One codebook a level, `(size, d)` each."""
    left = sample(vectors, max(sizes), generator).copy()
    levels = []
    for size in sizes:
        levels.append(kmeans(left, size, generator))
        left -= levels[-1][nearest(left, levels[-1])]
    return levels
