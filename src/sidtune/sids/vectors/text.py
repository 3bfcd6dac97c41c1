"""Texts as vectors: TF-IDF of their terms, then the largest singular values (latent semantic
analysis).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.config.sids import SidsConfig
from sidtune.sids.items import Items
from sidtune.sids.kmeans import Floats
from sidtune.sids.vectors.source import SVD, Source, State, import_sklearn, unit
from sidtune.sids.vectors.words import terms

# The commonest terms; more of them cost memory and are hardly seen.
MOST_TERMS = 100_000
# Terms and directions are learned from so many items at most, drawn by seed.
MOST_ITEMS = 200_000
# In a larger catalogue a term that one item has says nothing of others.
RARE_FROM = 1_000
ITEMS_AT_ONCE = 20_000
POWER_ITERATIONS = 5
COUNTER = "feature_extraction.text"


class Text:
    """Title and other texts of an item."""

    def fit(self, source: Source) -> tuple[Floats, State]:
        """Vectors `(n, at most text_dimensions)` of length 1, or 0 for items without text."""
        items, options = source.items, source.options
        if not any(items.texts):
            raise UserError(
                "no item has any text, and sids.vectors: text was asked for",
                "Use sids.vectors: co_occurrence.",
            )
        empty = sum(not text for text in items.texts)
        if empty:
            warn(f"{empty:,} of {len(items):,} items have no text at all; they share the vector 0")
        vectorizer = import_sklearn(COUNTER).CountVectorizer
        generator = np.random.default_rng(options.seed)
        texts = _drawn(items.texts, generator)
        counter = vectorizer(
            analyzer=terms,
            min_df=2 if len(texts) >= RARE_FROM else 1,
            max_features=MOST_TERMS,
            dtype=np.float32,
        )
        try:
            counts = counter.fit_transform(texts)
        except ValueError:
            raise UserError(
                "no text of any item has a letter or a digit", "Use sids.vectors: co_occurrence."
            ) from None
        known = counter.get_feature_names_out().tolist()
        holders = np.bincount(counts.indices, minlength=len(known))
        idf = (np.log((1 + len(texts)) / (1 + holders)) + 1).astype(np.float32)
        weighted = _weighted(counts, idf)
        rank = min(options.text_dimensions, *weighted.shape)
        _, _, axes = import_sklearn(SVD).randomized_svd(
            weighted,
            n_components=rank,
            n_iter=POWER_ITERATIONS,
            random_state=options.seed,
            flip_sign=True,
        )
        state = State({"idf": idf, "axes": np.ascontiguousarray(axes, np.float32)}, known)
        return self.place(items, state, options), state

    def place(self, items: Items, state: State, options: SidsConfig) -> Floats:
        """Vectors of other items by the terms and directions that were learned; unknown terms count
        for nothing.
        """
        vectorizer = import_sklearn(COUNTER).CountVectorizer
        counter = vectorizer(analyzer=terms, vocabulary=state.terms, dtype=np.float32)
        idf, axes = (np.asarray(state.tensors[name], np.float32) for name in ("idf", "axes"))
        parts = [
            np.asarray(
                _weighted(counter.transform(items.texts[at : at + ITEMS_AT_ONCE]), idf) @ axes.T
            )
            for at in range(0, len(items), ITEMS_AT_ONCE)
        ]
        return unit(np.concatenate(parts))


def _drawn(texts: list[str], generator: np.random.Generator) -> list[str]:
    if len(texts) <= MOST_ITEMS:
        return texts
    return [
        texts[place] for place in np.sort(generator.choice(len(texts), MOST_ITEMS, replace=False))
    ]


def _weighted(counts: Any, idf: Floats) -> Any:
    """TF-IDF rows of length 1 `(n, terms)`, sparse."""
    weighted = scipy.sparse.csr_matrix(counts, dtype=np.float32).multiply(idf).tocsr()
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return (scipy.sparse.diags(scale.astype(np.float32)) @ weighted).tocsr()
