"""Behaviour as vectors: which items the same users have, by positive pointwise mutual information
and its SVD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import svds

from sidtune.base.errors import UserError
from sidtune.base.ragged import row_of
from sidtune.base.terminal import warn
from sidtune.config.sids import SidsConfig
from sidtune.data.rows import Rows
from sidtune.sids.items import Items
from sidtune.sids.kmeans import Floats
from sidtune.sids.vectors.source import Source, State, unit


class CoOccurrence:
    """Items of the same histories, after Levy and Goldberg (2014)."""

    def fit(self, source: Source) -> tuple[Floats, State]:
        """Vectors `(n, at most co_occurrence_dimensions)` of length 1, or 0 for items that no
        training row pairs.
        """
        items = len(source.items)
        information = _information(_pairs(source.rows(), items))
        alone = int((np.diff(information.indptr) == 0).sum())
        if alone == items:
            raise UserError(
                "no training row pairs two items, so there is no co-occurrence",
                "Use sids.vectors: text.",
            )
        if alone:
            warn(
                f"{alone:,} of {items:,} items stand beside no other in the training rows; they"
                " share the vector 0"
            )
        rank = min(source.options.co_occurrence_dimensions, items - 1)
        start = np.random.default_rng(source.options.seed).standard_normal(items)
        left, sizes, _ = svds(information, rank, v0=start)
        order = np.argsort(-sizes, kind="stable")
        return unit((left[:, order] * np.sqrt(sizes[order])).astype(np.float32)), State()

    def place(self, items: Items, state: State, options: SidsConfig) -> None:
        """Nothing is known of items without training rows."""
        return None


def _pairs(rows: Rows, items: int) -> Any:
    """How often two items stand in one history `(items, items)`, symmetric; rows are pairs of
    history and target.
    """
    targets = rows.target[row_of(rows.history)]
    ones = np.ones(len(targets))
    one_way = scipy.sparse.coo_matrix(
        (ones, (targets, rows.history.values)), shape=(items, items)
    ).tocsr()
    both = (one_way + one_way.T).tolil()
    both.setdiag(0)
    found = both.tocsr()
    found.eliminate_zeros()
    return found


def _information(pairs: Any) -> Any:
    """Positive pointwise mutual information of a symmetric matrix of counts, sparse."""
    total, each = pairs.sum(), np.asarray(pairs.sum(1)).ravel()
    entries = pairs.tocoo()
    values = np.log(entries.data * total / (each[entries.row] * each[entries.col]))
    kept = values > 0
    where = (entries.row[kept], entries.col[kept])
    return scipy.sparse.csr_matrix((values[kept], where), shape=pairs.shape)
