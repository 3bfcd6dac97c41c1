"""SID tokens as codebooks: the ids of a level follow one another, and levels follow one another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError, some


@dataclass(frozen=True)
class Codebooks:
    """The token of code c at level l has id `start + sizes[0] + … + sizes[l - 1] + c`.

    Args:
        start: id of the first token of the first level.
        tokens: of each level, in the order of their codes.
    """

    start: int
    tokens: tuple[tuple[str, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Number of codes of each level."""
        return [len(level) for level in self.tokens]

    @property
    def end(self) -> int:
        """The last id."""
        return self.start + sum(self.sizes) - 1

    @property
    def ids(self) -> dict[str, int]:
        """The id of each token."""
        ordered = [token for level in self.tokens for token in level]
        return {token: self.start + place for place, token in enumerate(ordered)}

    def codes(self, sids: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        """SIDs as codes."""
        code_of = [{token: code for code, token in enumerate(level)} for level in self.tokens]
        return [
            tuple(codes[token] for codes, token in zip(code_of, sid, strict=True)) for sid in sids
        ]

    def order(self, before: Mapping[str, int]) -> NDArray[np.int64]:
        """For each id from `start` to `end`, the id that its token had before, `(tokens,)`."""
        return np.array([before[token] for token in self.ids], np.int64)


def one_depth(sids: Sequence[Sequence[str]]) -> int:
    """How many tokens each of these SIDs has.

    Raises:
        UserError: for SIDs of different depths.
    """
    depths = sorted({len(sid) for sid in sids})
    if len(depths) > 1:
        raise UserError(
            f"the SIDs have {', '.join(map(str, depths))} tokens; engines and codebooks need one"
            " depth",
            "Make an index with SIDs of one depth (`sids.collisions`), and train with it.",
        )
    return depths[0]


def codebooks_of(sids: Sequence[tuple[str, ...]], token_ids: Mapping[str, int]) -> Codebooks:
    """The codebooks of a catalogue, within the ids that its tokens have now.

    Raises:
        UserError: for a token that stands at two levels, for ids between which other tokens stand,
            and as `one_depth`.
    """
    levels = [{sid[level] for sid in sids} for level in range(one_depth(sids))]
    twice = sorted(
        token for token in set().union(*levels) if sum(token in level for level in levels) > 1
    )
    if twice:
        raise UserError(
            f"{some(twice)} stand at two levels of SIDs; codebooks need tokens of one level",
            "Name the tokens of each level differently in the index, and train with it.",
        )
    ids = [token_ids[token] for level in levels for token in level]
    if max(ids) - min(ids) + 1 != len(ids):
        raise UserError(
            f"other tokens stand between the {len(ids):,} SID tokens, whose ids are {min(ids):,} to"
            f" {max(ids):,}",
            "Train from a base that has none of the SID tokens.",
        )
    return Codebooks(min(ids), tuple(tuple(sorted(level, key=_by_code)) for level in levels))


def _by_code(token: str) -> list[tuple[int, str]]:
    """Sorts `<a_2>` before `<a_10>`."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", token)
    ]
