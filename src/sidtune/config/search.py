"""Search options, in a module of their own so that the command line does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Normalize = Literal["full", "trie"]
BEAMS, MAX_TOKENS = 50, 8192


@dataclass(frozen=True)
class RankOptions:
    """Options of the constrained beam search.

    Args:
        beams: beam width; also the maximum number of SIDs per list. None: as many as the ranker was
            fitted with (`Recommender.settled`), and `BEAMS` without one.
        normalize: normalise over the full vocabulary (`full`), or over the tokens that the trie
            allows (`trie`).
        exclude_history: never return an item of the user's history.
        max_tokens: tokens per forward pass; limits memory.
        both_directions: put the model's own list in order by both directions, in which it learned
            histories.
    """

    beams: int | None = None
    normalize: Normalize = "full"
    exclude_history: bool = False
    max_tokens: int = MAX_TOKENS
    both_directions: bool = False

    @property
    def width(self) -> int:
        """The number of beams."""
        return BEAMS if self.beams is None else self.beams
