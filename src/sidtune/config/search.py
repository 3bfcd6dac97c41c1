"""How lists are asked for; apart from what makes them, so that the command line need not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Normalize = Literal["full", "trie"]
BEAMS, MAX_TOKENS = 50, 8192


@dataclass(frozen=True)
class RankOptions:
    """How lists are made.

    Args:
        beams: width of the search, and SIDs of a list.
        normalize: probabilities over the full vocabulary, or over the tokens that the trie allows.
        exclude_history: answer with no item of the user's own history.
        max_tokens: of one forward pass; bounds memory.
    """

    beams: int = BEAMS
    normalize: Normalize = "full"
    exclude_history: bool = False
    max_tokens: int = MAX_TOKENS
