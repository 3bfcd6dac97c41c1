"""Product codes after a learned rotation (OPQ; Ge et al., 2013): each level has its own part of the
dimensions.
"""

from __future__ import annotations

import numpy as np

from sidtune.base.errors import UserError
from sidtune.sids.codebooks import Codebooks, Layer
from sidtune.sids.kmeans import Codes, Floats, kmeans, means, nearest, sample

ROTATIONS = 20


def fit(
    vectors: Floats, sizes: list[int], generator: np.random.Generator
) -> tuple[Codebooks, Codes]:
    """Codebooks over parts of the rotated dimensions, and the codes of all vectors.

    Raises:
        UserError: where there are fewer dimensions than levels.
    """
    if vectors.shape[1] < len(sizes):
        message = (
            f"sids.quantizer: product codes of {len(sizes)} levels need as many dimensions, found"
            f" {vectors.shape[1]}"
        )
        raise UserError(message, "Give fewer levels, or another quantizer.")
    few = sample(vectors, max(sizes), generator)
    rotation = _principal(few, len(sizes))
    parts = np.array_split(np.arange(vectors.shape[1]), len(sizes))
    turned = few @ rotation.T
    levels = [
        kmeans(np.ascontiguousarray(turned[:, part]), size, generator)
        for part, size in zip(parts, sizes, strict=True)
    ]
    for _ in range(ROTATIONS):
        turned = few @ rotation.T
        rebuilt = np.empty_like(turned)
        for at, part in enumerate(parts):
            piece = np.ascontiguousarray(turned[:, part])
            codes = nearest(piece, levels[at])
            levels[at] = means(piece, codes, sizes[at], levels[at])
            rebuilt[:, part] = levels[at][codes]
        # The rotation that brings the vectors nearest to what was rebuilt (orthogonal Procrustes
        # problem).
        left, _, right = np.linalg.svd(rebuilt.T @ few)
        rotation = np.ascontiguousarray(left @ right, np.float32)
    books = Codebooks(
        [_padded(level, part, vectors.shape[1]) for level, part in zip(levels, parts, strict=True)],
        [Layer(rotation, np.zeros(len(rotation), np.float32))],
    )
    return books, books.encode(books.project(vectors))


def _principal(vectors: Floats, parts: int) -> Floats:
    """Principal axes, dealt out so that every part has axes of large and of small variance."""
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    axes = axes[:, ::-1].T
    order = np.concatenate([np.arange(start, len(axes), parts) for start in range(parts)])
    return np.ascontiguousarray(axes[order], np.float32)


def _padded(
    level: Floats, part: np.ndarray[tuple[int], np.dtype[np.int64]], dimensions: int
) -> Floats:
    whole = np.zeros((len(level), dimensions), np.float32)
    whole[:, part] = level
    return whole
