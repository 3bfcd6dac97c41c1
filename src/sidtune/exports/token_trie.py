"""A catalogue as token ids: of each level, of each item, and as a table of what may follow what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.data.catalogue import Catalogue
from sidtune.exports.codebooks import one_depth

Path = tuple[int, ...]


@dataclass(frozen=True)
class TokenTrie:
    """The SIDs of a catalogue, all of one depth.

    The nodes of a level are numbered in the order of their paths, from 0; the root is the only node
    of level 0. The children of node `i` of level `l` are the nodes `starts[l][i]` to
    `starts[l][i + 1]` of the next level, and `tokens[l]` holds the token of each of these.

    Args:
        starts: of each level, `(nodes + 1,)`.
        tokens: of each level, `(nodes of the next level,)`; ascending below one node.
    """

    starts: tuple[NDArray[np.int64], ...]
    tokens: tuple[NDArray[np.int64], ...]

    @property
    def depth(self) -> int:
        """Tokens of a SID."""
        return len(self.tokens)

    @property
    def levels(self) -> list[list[int]]:
        """The token ids of each level, ascending."""
        return [np.unique(level).tolist() for level in self.tokens]

    @property
    def count(self) -> int:
        """Number of SIDs."""
        return len(self.tokens[-1])

    def tensors(self) -> dict[str, NDArray[np.int64]]:
        """The table by name: `starts.0`, `tokens.0`, and so on."""
        return {
            f"{name}.{level}": array
            for name, arrays in (("starts", self.starts), ("tokens", self.tokens))
            for level, array in enumerate(arrays)
        }


def item_paths(catalogue: Catalogue, token_ids: Mapping[str, int]) -> dict[str, Path]:
    """The token ids of each item's SID.

    Raises:
        UserError: for SIDs of different depths: engines generate a fixed number of tokens.
    """
    one_depth(catalogue.sids)
    sids = ([token_ids[token] for token in sid] for sid in catalogue.sids)
    return {item: tuple(ids) for item, ids in zip(catalogue.ids, sids, strict=True)}


def token_trie(paths: Sequence[Path]) -> TokenTrie:
    """The trie of paths of one length; the same path may occur several times."""
    rows = np.unique(np.array(paths, np.int64), axis=0)
    changed = np.ones(rows.shape, bool)
    changed[1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
    starts, tokens, parents = [], [], np.zeros(len(rows), np.int64)
    for level in range(rows.shape[1]):
        first = changed[:, level]
        children = np.bincount(parents[first], minlength=parents[-1] + 1)
        starts.append(np.concatenate([[0], np.cumsum(children)]))
        tokens.append(rows[first, level])
        parents = np.cumsum(first) - 1
    return TokenTrie(tuple(starts), tuple(tokens))
