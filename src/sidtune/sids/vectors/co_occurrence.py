"""Behaviour as vectors: which items the same users have, by positive pointwise mutual information
and its SVD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from sidtune.base.errors import UserError
from sidtune.base.ragged import row_of
from sidtune.base.terminal import warn
from sidtune.config.sids import SidsConfig
from sidtune.data.rows import Rows
from sidtune.sids.items import Items
from sidtune.sids.kmeans import Floats
from sidtune.sids.vectors.source import SVD, Source, State, import_sklearn, unit

# More of them take longer, and neighbours rank no better.
POWER_ITERATIONS = 2
# Directions besides those that are kept, which make these more exact.
OVERSAMPLES = 10
PAIRS_AT_ONCE = 1 << 20


class CoOccurrence:
    """Items of the same histories, after Levy and Goldberg (2014)."""

    def fit(self, source: Source) -> tuple[Floats, State]:
        """Vectors `(n, at most co_occurrence_dimensions)` of length 1, or 0 for items that no
        training row pairs.
        """
        options, items = source.options, len(source.items)
        vectors = behaviour(source.rows(), items, options.co_occurrence_dimensions, options.seed)
        if vectors is None:
            raise UserError(
                "no training row pairs two items, so there is no co-occurrence",
                "Use sids.vectors: text.",
            )
        if alone := int((vectors == 0).all(axis=1).sum()):
            warn(
                f"{alone:,} of {items:,} items stand beside no other in the training rows; they"
                " share the vector 0"
            )
        return vectors, State()

    def place(self, items: Items, state: State, options: SidsConfig) -> None:
        """Nothing is known of items without training rows."""
        return None


def behaviour(rows: Rows, items: int, dimensions: int, seed: int) -> Floats | None:
    """Vectors `(items, at most dimensions)` of length 1, or 0 for items that no row pairs with
    another; None where no row pairs two.

    The singular value decomposition is randomised (Halko et al., 2011, algorithms 4.4 and 5.1),
    with a seed. Its last step decomposes the small matrix of inner products, many times as fast as
    the wide one.

    Raises:
        UserError: where scikit-learn is not installed.
    """
    information = _information(_pairs(rows, items))
    if not information.nnz:
        return None
    basis = import_sklearn(SVD).randomized_range_finder(
        information,
        size=min(dimensions + OVERSAMPLES, items),
        n_iter=POWER_ITERATIONS,
        power_iteration_normalizer="LU",
        random_state=seed,
    )
    seen = information @ basis
    squares, directions = np.linalg.eigh((seen.T @ seen).astype(np.float64))
    largest = np.argsort(-squares, kind="stable")[: min(dimensions, items - 1)]
    # The root of a singular value, which is the root of its square.
    sizes = np.maximum(squares[largest], 0) ** 0.25
    vectors = unit(basis @ (directions[:, largest] * sizes).astype(np.float32))
    # Items without pairs get next to nothing, which a length of 1 would blow up.
    vectors[np.diff(information.indptr) == 0] = 0
    return vectors


def _pairs(rows: Rows, items: int) -> Any:
    """How often two items stand in one history `(items, items)`, symmetric; rows are pairs of
    history and target.
    """
    targets, before = rows.target[row_of(rows.history)], rows.history.values
    others = targets != before
    where = (targets[others], before[others])
    one_way = scipy.sparse.coo_matrix((np.ones(len(where[0])), where), shape=(items, items)).tocsr()
    return (one_way + one_way.T).tocsr()


def _information(pairs: Any) -> Any:
    """Positive pointwise mutual information of a symmetric matrix of counts, sparse."""
    total, each = pairs.sum(), np.asarray(pairs.sum(1)).ravel()
    row = np.repeat(np.arange(pairs.shape[0], dtype=np.int32), np.diff(pairs.indptr))
    values = np.empty(pairs.nnz, np.float32)
    # In blocks: with a million items there are many pairs.
    for start in range(0, pairs.nnz, PAIRS_AT_ONCE):
        block = slice(start, start + PAIRS_AT_ONCE)
        expected = each[row[block]] * each[pairs.indices[block]]
        values[block] = np.log(pairs.data[block] * total / expected)
    kept = values > 0
    where = (row[kept], pairs.indices[kept])
    return scipy.sparse.csr_matrix((values[kept], where), shape=pairs.shape)
