"""The catalogue's SIDs as a trie of flat tensors: which token may follow, for any number of
prefixes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sidtune.base.ragged import Ragged

NOTHING = -1


@dataclass(frozen=True)
class Level:
    """What follows the nodes of one depth; their children are numbered in order of parent and
    token.

    Args:
        tokens: `(tokens,)` vocabulary ids that follow any node of this depth, ascending.
        starts: `(nodes + 1,)`, the children of node `i` are `starts[i]` to `starts[i + 1]`.
        columns: `(children,)`, where each child's token stands in `tokens`.
        sids: `(children,)`, the number of the SID that ends in a child, -1 where none does.
        below: `(children,)`, how many SIDs a child leads to.
        child_of: `(SIDs,)`, the child that leads to each SID, -1 where it ended before.
        fan_out: children of the widest node.
        complete, open: whether any child ends a SID, and whether any does not.
    """

    tokens: Tensor
    starts: Tensor
    columns: Tensor
    sids: Tensor
    below: Tensor
    child_of: Tensor
    fan_out: int
    complete: bool
    open: bool

    def expand(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The children of nodes: `(users, beams)` → children, -1 where there is none, and their
        columns.

        Both are `(users, beams, fan_out)`.
        """
        start, end = self.starts[nodes, None], self.starts[nodes + 1, None]
        children = start + torch.arange(self.fan_out, device=nodes.device)
        there = children < end
        children = torch.where(there, children, 0)
        return torch.where(there, children, NOTHING), self.columns[children]

    def exhausted(self, excluded: Tensor) -> Tensor:
        """The children below which all SIDs are excluded, `(users, SIDs)`, padded with -2.

        Args:
            excluded: `(users, SIDs)` distinct numbers, padded with -1.
        """
        children = torch.where(excluded >= 0, self.child_of[excluded], NOTHING)
        # By their order: to compare all pairs would be quadratic in a long history.
        ordered = children.sort(dim=1).values
        first = torch.searchsorted(ordered, children)
        together = torch.searchsorted(ordered, children, right=True) - first
        return torch.where(
            (children >= 0) & (together == self.below[children]), children, NOTHING - 1
        )

    def to(self, device: torch.device) -> Level:
        """The level on another device."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Trie:
    """All SIDs; where one is the beginning of another, it is followed by the closing token.

    Args:
        levels: one for each token of the longest path.
        count: number of distinct SIDs.
    """

    levels: list[Level]
    count: int

    def to(self, device: torch.device) -> Trie:
        """The trie on another device."""
        return Trie([level.to(device) for level in self.levels], self.count)


@dataclass(frozen=True)
class Hint:
    """For each prompt a SID whose first tokens are given: others are not looked for.

    Args:
        sids: `(users,)`, their numbers.
        tokens: how many are given; of a shorter SID, all.
    """

    sids: Tensor
    tokens: int

    def forbids(self, level: Level, depth: int, children: Tensor) -> Tensor:
        """Whether children of a level lead away from what is given, `(users, children)`."""
        given = level.child_of[self.sids]
        away = (children != given[:, None]) & (given >= 0)[:, None]
        return away & (depth < self.tokens)


def distinct_sids(
    sids: Sequence[tuple[str, ...]], token_ids: dict[str, int]
) -> tuple[Ragged, NDArray[np.int64]]:
    """The distinct SIDs as vocabulary ids, sorted, and the number of each item's SID, `(items,)`.

    Args:
        sids: one an item.
        token_ids: vocabulary id of every SID token.
    """
    names = list(token_ids)
    place = {name: index for index, name in enumerate(names)}
    ids = np.fromiter(token_ids.values(), np.int64, len(names))
    flat = np.fromiter((place[token] for token in chain.from_iterable(sids)), np.int64)
    lengths = np.fromiter(map(len, sids), np.int64, len(sids))
    paths = _padded(Ragged.from_lengths(ids[flat], lengths))
    order = _sorted(paths)
    fresh = np.concatenate([[True], np.any(paths[order[1:]] != paths[order[:-1]], axis=1)])
    numbers = np.empty(len(sids), np.int64)
    numbers[order] = np.cumsum(fresh) - 1
    first = order[fresh]
    return Ragged.from_lengths(paths[first][paths[first] != NOTHING], lengths[first]), numbers


def beginnings(sids: Ragged) -> NDArray[np.bool_]:
    """Which SIDs begin another one, `(SIDs,)`; sorted as `distinct_sids` sorts them."""
    paths = _padded(sids)
    begins = np.all((paths[:-1] == paths[1:]) | (paths[:-1] == NOTHING), axis=1)
    return np.append(begins, False)


def build_trie(sids: Ragged, closing: int, begins: NDArray[np.bool_] | None = None) -> Trie:
    """Build the trie in passes over whole columns.

    Args:
        sids: distinct paths of vocabulary ids, as `distinct_sids` sorts them.
        closing: the token that follows a whole SID in every response.
        begins: `(SIDs,)`, which of them begin another one, if that may be one that the trie does
            not hold: to the model it is still there.
    """
    paths = _closed(
        _padded(sids), sids.lengths, closing, beginnings(sids) if begins is None else begins
    )
    order = _sorted(paths)
    paths, numbers = paths[order], order
    changed = np.ones(paths.shape, bool)
    changed[1:] = np.logical_or.accumulate(paths[1:] != paths[:-1], axis=1)
    fresh = changed & (paths != NOTHING)
    nodes = np.cumsum(fresh, axis=0) - 1
    ends = (paths != NOTHING).sum(axis=1)
    levels = []
    for depth in range(paths.shape[1]):
        rows = np.flatnonzero(fresh[:, depth])
        parents = nodes[rows, depth - 1] if depth else np.zeros(len(rows), np.int64)
        parent_count = int(fresh[:, depth - 1].sum()) if depth else 1
        finished = np.where(ends[rows] == depth + 1, numbers[rows], NOTHING)
        child_of = np.full(len(sids), NOTHING)
        child_of[numbers] = np.where(ends > depth, nodes[:, depth], NOTHING)
        levels.append(_level(paths[rows, depth], parents, parent_count, finished, child_of))
    return Trie(levels, len(sids))


def _level(
    tokens: NDArray[np.int64],
    parents: NDArray[np.int64],
    parent_count: int,
    sids: NDArray[np.int64],
    child_of: NDArray[np.int64],
) -> Level:
    vocabulary, columns = np.unique(tokens, return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(np.bincount(parents, minlength=parent_count))])
    return Level(
        torch.from_numpy(vocabulary),
        torch.from_numpy(starts),
        torch.from_numpy(columns),
        torch.from_numpy(sids),
        torch.from_numpy(np.bincount(child_of[child_of >= 0])),
        torch.from_numpy(child_of),
        int(np.diff(starts).max()),
        bool((sids >= 0).any()),
        bool((sids < 0).any()),
    )


def _padded(paths: Ragged) -> NDArray[np.int64]:
    """Paths as rows `(paths, longest + 1)`; the last column leaves room for a closing token."""
    return paths.rectangle(int(paths.lengths.max()) + 1, NOTHING)


def _sorted(paths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of rows by their first column, then the second, and so on; a beginning stands
    before what it begins.
    """
    return np.lexsort(paths.T[::-1])


def _closed(
    paths: NDArray[np.int64],
    lengths: NDArray[np.int64],
    closing: int,
    begins: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Paths, those that begin another with the closing token behind them; empty columns left
    out.
    """
    rows = np.flatnonzero(begins)
    paths[rows, lengths[rows]] = closing
    return paths[:, : int((paths != NOTHING).sum(axis=1).max())]
