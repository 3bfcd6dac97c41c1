"""SID prefixes, and which of them each label of a response continues."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

NOTHING = -1


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The prefixes of all SIDs as nodes of a tree, numbered level by level; node 0 is the empty
    prefix.

    Where one SID is a prefix of another, the token that closes a response is among its children.

    Args:
        starts: `(nodes + 1,)`, the children of node `i` are `starts[i]` to `starts[i + 1]`; child
            `j` is node `j + 1`.
        tokens: `(nodes - 1,)`, the token that leads to each child; ascending among the children of
            one node.
    """

    starts: NDArray[np.int64]
    tokens: NDArray[np.int64]

    def walk(self, labels: NDArray[np.int64], opens: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The node that each label continues, -1 for labels that are not SID tokens.

        A label that does not continue the prefix before it starts again at the root, as does the
        label after a complete SID.

        Args:
            labels: `(labels,)` token ids, span by span.
            opens: `(labels,)`, true for the first label of a span, since the tokens before it are
                unknown.
        """
        known = np.isin(labels, self.tokens)
        # Labels that are not SID tokens reset the walk, so the runs of SID tokens between them are
        # walked in parallel.
        fresh = known & (opens | ~np.append(False, known[:-1]))
        goes_on = np.append(known & ~fresh, False)
        nodes = np.full(len(labels), NOTHING)
        place = np.flatnonzero(fresh)
        at = np.zeros(len(place), np.int64)
        while len(place):
            child = self._child(at, labels[place])
            at = np.where(child < 0, 0, at)
            child = np.where(child < 0, self._child(at, labels[place]), child)
            nodes[place] = np.where(child < 0, NOTHING, at)
            at = np.where((child < 0) | (self.starts[child] == self.starts[child + 1]), 0, child)
            more = goes_on[place + 1]
            place, at = place[more] + 1, at[more]
        return nodes

    def _child(self, nodes: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The node that a token leads to, -1 if it may not follow."""
        keys, wanted = self._keys, self._key(nodes, tokens)
        index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[index] == wanted, index + 1, NOTHING)

    def _key(self, nodes: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        return nodes * (int(self.tokens.max()) + 1) + tokens

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        """Parent and token of every child as one number, ascending."""
        return self._key(
            np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts)), self.tokens
        )
