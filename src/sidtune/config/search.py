"""Search options, in a module of their own so that the command line does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sidtune.base.errors import UserError, did_you_mean

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

    Raises:
        UserError: for values other than these.
    """

    beams: int | None = None
    normalize: Normalize = "full"
    exclude_history: bool = False
    max_tokens: int = MAX_TOKENS
    both_directions: bool = False

    def __post_init__(self) -> None:
        refuse_other("normalize", self.normalize, get_args(Normalize))
        refuse_below_one("max_tokens", self.max_tokens)
        if self.beams is not None:
            refuse_below_one("beams", self.beams)

    @property
    def width(self) -> int:
        """The number of beams."""
        return BEAMS if self.beams is None else self.beams


def refuse_other(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a value that is none of the known ones."""
    if value not in known:
        near = did_you_mean(value, known) if isinstance(value, str) else ""
        raise UserError(f"{name} is {value!r:.60}{near}", f"Use {' or '.join(known)}.")


def refuse_below_one(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1."""
    if type(value) is not int or value < 1:
        raise UserError(f"{name} is {value!r:.60}", "Give a whole number of at least 1.")
