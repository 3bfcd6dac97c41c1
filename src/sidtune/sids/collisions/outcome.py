"""What a rule for collisions is given, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sidtune.sids.codebooks import Codebooks
from sidtune.sids.kmeans import Codes, Floats


@dataclass(frozen=True)
class Outcome:
    """The codes that items end with.

    Args:
        codes: `(n, levels)`.
        extra: `(n,)`, the number of one token more, -1 where an item has none.
        moved: how many items have another last code than the nearest.
        surplus: how many of these have another prefix than the nearest, since theirs had more items
            than codes.
    """

    codes: Codes
    extra: Codes
    moved: int = 0
    surplus: int = 0


class Rule(Protocol):
    """Settles which SIDs items have, given latents `(n, latent)`, codebooks and the nearest codes
    `(n, levels)`.
    """

    def __call__(self, latents: Floats, books: Codebooks, codes: Codes) -> Outcome: ...
