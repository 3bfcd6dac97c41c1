"""Rankings by popularity, and rankings that differ from it by a few items per row, without dense
scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged
from sidtune.base.terminal import progress
from sidtune.metrics.ranks import Ranking

ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Popular:
    """The items that may be listed, most training users first, and which of them share a SID.

    A place is an item's index in that order, from 0.

    Args:
        order: `(listed,)`, catalogue positions.
        place: `(items,)`, the place of each item; -1 for items that may not be listed.
        column: `(items,)`, the SID of each item, numbered from 0 without gaps.
        members: places of the items of each SID that may be listed, ascending.
        best: `(SIDs with items that may be listed,)`, the place of each one's best item, ascending.
        depth: length of the lists.
    """

    order: NDArray[np.int64]
    place: NDArray[np.int64]
    column: NDArray[np.int64]
    members: Ragged
    best: NDArray[np.int64]
    depth: int

    @classmethod
    def of(
        cls,
        users: NDArray[np.integer],
        sid_of: NDArray[np.integer],
        depth: int,
        allowed: NDArray[np.bool_] | None,
    ) -> Popular:
        """The order by training users, `(items,)`, then by catalogue position."""
        order = np.argsort(-users, kind="stable")
        listed = order if allowed is None else order[allowed[order]]
        place = np.full(len(users), -1, np.int64)
        place[listed] = np.arange(len(listed))
        column = np.unique(sid_of, return_inverse=True)[1]
        # Stable: those of one SID stay in the order of their places.
        members = np.argsort(column[listed], kind="stable")
        sizes = np.bincount(column[listed], minlength=int(column.max()) + 1)
        groups = Ragged.from_lengths(members, sizes)
        best = np.sort(groups.values[groups.offsets[:-1][sizes > 0]]).astype(np.int64)
        return cls(listed, place, column, groups, best, depth)

    def rank_rows(
        self, name: str, front: Ragged, hidden: Ragged, target: NDArray[np.integer]
    ) -> Ranking:
        """Rank the catalogue by popularity, except for a few items per row.

        Args:
            name: of the ranker, for the progress bar.
            front: per row, catalogue positions ranked before all others, best first; later
                repetitions and items that may not be listed are ignored.
            hidden: per row, catalogue positions that may not be listed.
            target: `(rows,)`, catalogue positions.
        """
        sid_ranks, item_ranks = np.zeros((2, len(target)), np.int64)
        items = np.full((len(target), self.depth), -1, np.int64)
        starts = range(0, len(target), ROWS_AT_ONCE)
        for start in progress(
            starts, name, len(target), lambda first: min(ROWS_AT_ONCE, len(target) - first)
        ):
            for row in range(start, min(start + ROWS_AT_ONCE, len(target))):
                out = set(self._places(hidden[row]))
                first = [place for place in self._places(front[row]) if place not in out]
                listed = self._list(first, out)
                items[row, : len(listed)] = listed
                item_ranks[row] = self._item_rank(first, out, int(self.place[target[row]]))
                sid_ranks[row] = self._sid_rank(first, out, int(self.column[target[row]]))
        return Ranking(sid_ranks, item_ranks, items)

    def _places(self, items: NDArray[np.int32]) -> list[int]:
        """Places of items that may be listed, each once, in the order in which they
        first appear.
        """
        return [place for place in dict.fromkeys(self.place[items].tolist()) if place >= 0]

    def _list(self, first: Sequence[int], out: set[int]) -> NDArray[np.int64]:
        """The first items of the ranking, at most `depth`."""
        kept = np.ones(min(self.depth + len(first) + len(out), len(self.order)), np.bool_)
        kept[[place for place in (*first, *out) if place < len(kept)]] = False
        return np.concatenate([self.order[first], self.order[: len(kept)][kept]])[: self.depth]

    def _item_rank(self, first: Sequence[int], out: set[int], place: int) -> int:
        """The rank of an item, from 1; 0 if it may not be listed."""
        if place < 0 or place in out:
            return 0
        if place in first:
            return first.index(place) + 1
        return (
            1 + place + sum(other > place for other in first) - sum(other < place for other in out)
        )

    def _sid_rank(self, first: Sequence[int], out: set[int], sid: int) -> int:
        """The rank of a SID among SIDs by their best items, from 1; 0 if none of its items may be
        listed.
        """
        moved = list(dict.fromkeys(self.column[self.order[first]].tolist()))
        if sid in moved:
            return moved.index(sid) + 1
        own = self._best(sid, out)
        if own is None:
            return 0
        above = int(np.searchsorted(self.best, own))
        for other in {*moved, *self.column[self.order[list(out)]].tolist()}:
            # Before its items were moved or hidden, it ranked above.
            if self.members[other][0] < own:
                left = None if other in moved else self._best(other, out)
                above -= left is None or left >= own
        return 1 + len(moved) + above

    def _best(self, sid: int, out: set[int]) -> int | None:
        """The place of the best item of a SID that is not hidden, if there is one."""
        return next((place for place in self.members[sid].tolist() if place not in out), None)
