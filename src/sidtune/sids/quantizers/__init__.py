"""Ways from vectors to codebooks and codes; `QUANTIZERS` is the only registry."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np

from sidtune.config.sids import QuantizerKind
from sidtune.sids.codebooks import Codebooks
from sidtune.sids.kmeans import Codes, Floats
from sidtune.sids.quantizers import balanced, product, residual_kmeans


class Quantizer(Protocol):
    """Fits codebooks to vectors `(n, d)` and gives the codes of these, `(n, levels)`."""

    def __call__(
        self, vectors: Floats, sizes: list[int], generator: np.random.Generator
    ) -> tuple[Codebooks, Codes]: ...


def _rq_vae(
    vectors: Floats, sizes: list[int], generator: np.random.Generator, *, skip: bool
) -> tuple[Codebooks, Codes]:
    """It needs torch, which takes seconds to import."""
    from sidtune.sids.quantizers import rq_vae

    return rq_vae.fit(vectors, sizes, generator, skip=skip)


QUANTIZERS: dict[QuantizerKind, Quantizer] = {
    "residual_kmeans": residual_kmeans.fit,
    "balanced": balanced.fit,
    "rq_vae": partial(_rq_vae, skip=False),
    "rq_kmeans_plus": partial(_rq_vae, skip=True),
    "product": product.fit,
}
