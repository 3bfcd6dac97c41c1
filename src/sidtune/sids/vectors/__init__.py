"""Ways from items to vectors; `VECTORS` is the only registry. Several kinds are concatenated by
weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsConfig, VectorKind
from sidtune.sids.items import Items
from sidtune.sids.kmeans import Floats, chunks, distances
from sidtune.sids.vectors.co_occurrence import CoOccurrence
from sidtune.sids.vectors.given import Given
from sidtune.sids.vectors.source import Kind, Source, State, unit
from sidtune.sids.vectors.text import Text


def _encoder() -> Kind:
    """It needs torch and Transformers, which take seconds to import."""
    from sidtune.sids.vectors.encoder import Encoder

    return Encoder()


VECTORS: dict[VectorKind, Callable[[], Kind]] = {
    "text": Text,
    "co_occurrence": CoOccurrence,
    "encoder": _encoder,
    "file": Given,
}

# Places of a new item's neighbours, whose vectors stand in for those it cannot have.
NEIGHBOURS = 10
PAIRS_OF_NEIGHBOURS = 1 << 26


def fit_vectors(source: Source) -> tuple[Floats, dict[VectorKind, State], list[int]]:
    """Vectors `(n, d)` of the items, what each kind learned, and the dimensions of each kind.

    Several kinds have rows of length 1 before they are weighted, so that weights compare.

    Raises:
        UserError: where all vectors are equal, and as the kinds.
    """
    weights = source.options.weights
    fitted: dict[VectorKind, tuple[Floats, State]] = {
        name: VECTORS[name]().fit(source) for name in weights
    }
    vectors = concatenated({name: block for name, (block, _) in fitted.items()}, weights)
    if len(vectors) > 1 and (vectors == vectors[0]).all():
        raise UserError(
            f"all {len(vectors):,} items have the same vector, so nothing tells them apart",
            "Are all titles equal? Give other texts (sids.columns) or other vectors"
            " (sids.vectors).",
        )
    return (
        vectors,
        {name: state for name, (_, state) in fitted.items()},
        [block.shape[1] for block, _ in fitted.values()],
    )


def concatenated(
    blocks: Mapping[VectorKind, Floats], weights: Mapping[VectorKind, float]
) -> Floats:
    """Blocks side by side, each times its weight; a single one stays as it is."""
    if len(weights) == 1:
        return next(iter(blocks.values()))
    return np.concatenate(
        [unit(blocks[name]) * np.float32(weight) for name, weight in weights.items()], axis=1
    )


def place_vectors(
    items: Items,
    states: Mapping[VectorKind, State],
    options: SidsConfig,
    known: Floats,
    widths: list[int],
) -> Floats:
    """Vectors `(m, d)` of items that were not fitted.

    A kind that knows nothing of them gives the mean of what the nearest fitted items have, by the
    other kinds.

    Args:
        known: `(n, d)`, vectors of the fitted items.
        widths: the dimensions of each kind.

    Raises:
        UserError: where no kind knows anything of new items, and for vectors of other dimensions
            than the fitted ones.
    """
    weights = options.weights
    blocks = {name: VECTORS[name]().place(items, states[name], options) for name in weights}
    if all(block is None for block in blocks.values()):
        raise UserError(
            "co-occurrence vectors know nothing of items that no training row has",
            "Fit with texts as well, sids.vectors: {text: 1, co_occurrence: 0.5}, or fit anew with"
            " `sidtune sids`.",
        )
    for (name, block), width in zip(blocks.items(), widths, strict=True):
        if block is not None and block.shape[1] != width:
            raise UserError(
                f"{getattr(options, name, name)}: vectors of {block.shape[1]:,} dimensions, and the"
                f" codebooks were fitted on {width:,}",
                "Make the vectors as those were made.",
            )
    edges = np.cumsum([0, *widths])
    parts = {
        name: slice(start, end) for name, start, end in zip(weights, edges, edges[1:], strict=False)
    }
    one = len(weights) == 1
    found = np.zeros((len(items), known.shape[1]), np.float32)
    for name, block in blocks.items():
        if block is not None:
            found[:, parts[name]] = block if one else unit(block) * np.float32(weights[name])
    missing = [parts[name] for name, block in blocks.items() if block is None]
    present = np.concatenate(
        [
            np.arange(part.start, part.stop)
            for name, part in parts.items()
            if blocks[name] is not None
        ]
    )
    for part in missing:
        found[:, part] = _borrowed(found[:, present], known[:, present], known[:, part])
    return found


def _borrowed(new: Floats, known: Floats, theirs: Floats) -> Floats:
    """The mean of `theirs` over the known rows that are nearest to each new one."""
    found = np.empty((len(new), theirs.shape[1]), np.float32)
    few = min(NEIGHBOURS, len(known))
    for rows in chunks(len(new), len(known), PAIRS_OF_NEIGHBOURS):
        near = np.argpartition(distances(new[rows], known), few - 1, axis=1)[:, :few]
        found[rows] = theirs[near].mean(1)
    return found
