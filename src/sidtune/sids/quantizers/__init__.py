"""Ways from vectors to codebooks and codes; `QUANTIZERS` is the only registry."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sidtune.config.sids import QuantizerKind
from sidtune.sids.codebooks import Codebooks
from sidtune.sids.kmeans import Codes, Floats
from sidtune.sids.quantizers import balanced, product, residual_kmeans, rq_vae


class Quantizer(Protocol):
    """Fits codebooks to vectors `(n, d)` and gives the codes of these, `(n, levels)`."""

    def __call__(
        self, vectors: Floats, sizes: list[int], generator: np.random.Generator
    ) -> tuple[Codebooks, Codes]: ...


QUANTIZERS: dict[QuantizerKind, Quantizer] = {
    "residual_kmeans": residual_kmeans.fit,
    "balanced": balanced.fit,
    "rq_vae": rq_vae.fit,
    "rq_kmeans_plus": rq_vae.fit_plus,
    "product": product.fit,
}
