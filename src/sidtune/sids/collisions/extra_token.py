"""Items that share a SID get one token more each, which counts them (TIGER, Rajput et
al., 2023).
"""

from __future__ import annotations

import numpy as np

from sidtune.sids.codebooks import Codebooks
from sidtune.sids.collisions.outcome import Outcome
from sidtune.sids.kmeans import Codes, Floats


def resolve(latents: Floats, books: Codebooks, codes: Codes) -> Outcome:
    """The codes as they are, and a number for each item of a shared SID, from 0 on in catalogue
    order.
    """
    _, group, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    group = group.ravel()
    order = np.argsort(group, kind="stable")
    starts = np.cumsum(counts) - counts
    numbers = np.empty(len(codes), np.int32)
    numbers[order] = np.arange(len(codes)) - starts[group[order]]
    return Outcome(codes, np.where(counts[group] > 1, numbers, -1).astype(np.int32))
