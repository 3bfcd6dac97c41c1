"""The token paths of all SIDs, as arrays that groups of answers are looked up in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.decoding.trie import NOTHING, Trie


@dataclass(frozen=True)
class Paths:
    """The way through the trie to each SID; one that begins another has the closing token as well.

    Args:
        tokens: `(SIDs, depth)` vocabulary ids, -1 behind the end of a path.
        nodes: `(SIDs, depth)`, the prefix that each token continues, numbered as in `prefixes_of`.
        lengths: `(SIDs,)`, tokens of each path.
    """

    tokens: NDArray[np.int64]
    nodes: NDArray[np.int64]
    lengths: NDArray[np.int64]


def paths_of(trie: Trie) -> Paths:
    """The paths of all SIDs of a trie."""
    tokens, nodes, before, parents = [], [], 0, np.zeros(trie.count, np.int64)
    for level in trie.levels:
        child = level.child_of.numpy()
        there = child >= 0
        tokens.append(np.where(there, level.tokens[level.columns].numpy()[child], NOTHING))
        nodes.append(np.where(there, parents, NOTHING))
        # Node 0 is the empty prefix; children are numbered level by level.
        parents, before = 1 + before + child, before + len(level.columns)
    table = np.stack(tokens, axis=1)
    return Paths(table, np.stack(nodes, axis=1), (table != NOTHING).sum(axis=1))
