"""Candidate SIDs, and the conversion of SIDs to items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError, some
from sidtune.base.ragged import Ragged, place_of, row_of
from sidtune.base.terminal import warn
from sidtune.data.catalogue import Catalogue
from sidtune.decoding.prompts import Prompts
from sidtune.decoding.trie import Trie, build_trie
from sidtune.files.text import read_lines
from sidtune.metrics.ranks import Ranking
from sidtune.runs.bundle import Bundle


@dataclass(frozen=True)
class Answers:
    """The SIDs that may be returned, numbered, and their items.

    Args:
        trie: over these SIDs.
        items: catalogue positions of each SID's items, those with more training users first.
        sid_of: `(items,)`, the number of each item's SID; -1 for items that may not be returned.
    """

    trie: Trie
    items: Ragged
    sid_of: NDArray[np.int64]

    @property
    def first_items(self) -> NDArray[np.int32]:
        """The first item of each SID, any of which tells its tokens."""
        return self.items.values[self.items.offsets[:-1]]

    def shown(
        self, sids: NDArray[np.int64], hidden: Ragged | None = None
    ) -> tuple[Ragged, NDArray[np.int64]]:
        """Lists of SIDs as lists of items: those of one SID follow one another, and no list gets
        longer.

        Args:
            sids: `(rows, beams)`, padded with -1.
            hidden: items that each list leaves out.

        Returns:
            Catalogue positions, at most `beams` a row, and the column in `sids` that each comes
            from, `(items,)`.
        """
        there = sids >= 0
        # No SID shows more items than a list has places, besides those that are hidden.
        most = sids.shape[1] + (0 if hidden is None else int(hidden.lengths.max(initial=0)))
        groups = self.items.drop_back(np.maximum(self.items.lengths - most, 0))
        items = Ragged.from_lengths(sids[there], there.sum(axis=1)).flatten(groups)
        columns = np.repeat(np.nonzero(there)[1], groups.lengths[sids[there]])
        if hidden is not None:
            seen = ~_among(items, hidden, len(self.sid_of))
            items, columns = items.keep(seen), columns[seen]
        fits = place_of(items) < sids.shape[1]
        return items.keep(fits), columns[fits]

    def exhausted(self, history: Ragged) -> Ragged:
        """For each history, the SIDs whose items are all in the history."""
        count = len(self.sid_of)
        rows, items = np.divmod(np.unique(row_of(history) * count + history.values), count)
        sids = self.sid_of[items]
        keys, held = np.unique((rows * (self.trie.count + 1) + sids)[sids >= 0], return_counts=True)
        rows, sids = np.divmod(keys, self.trie.count + 1)
        whole = held == self.items.lengths[sids]
        return Ragged.from_lengths(sids[whole], np.bincount(rows[whole], minlength=len(history)))

    def rank(
        self, sids: NDArray[np.int64], target: NDArray[np.integer], hidden: Ragged | None = None
    ) -> Ranking:
        """Where targets stand in lists of SIDs.

        Args:
            sids: `(rows, beams)`, padded with -1.
            target: `(rows,)` catalogue positions.
            hidden: items that each list leaves out.
        """
        lists = self.shown(sids, hidden)[0].rectangle(sids.shape[1])
        same_item = (lists == target[:, None]) & (lists >= 0)
        same_sid = (sids == self.sid_of[target][:, None]) & (sids >= 0)
        return Ranking(_first(same_sid), _first(same_item), lists)

    def rank_items(self, items: Ragged, target: NDArray[np.integer], depth: int) -> Ranking:
        """Where targets stand in lists of items; a SID stands where its first item does.

        Args:
            items: catalogue positions, best first.
            target: `(rows,)` catalogue positions.
            depth: length of the lists.
        """
        rows = items.keep(place_of(items) < depth).rectangle(depth)
        sids = np.where(rows >= 0, self.sid_of[rows], -1)
        order = np.argsort(sids, axis=1, kind="stable")
        ordered = np.take_along_axis(sids, order, axis=1)
        opens = np.diff(ordered, axis=1, prepend=-2) != 0
        new = np.zeros(rows.shape, bool)
        np.put_along_axis(new, order, opens, axis=1)
        # Number of distinct SIDs up to each place.
        places = np.cumsum(new & (sids >= 0), axis=1)
        same_sid = (sids == self.sid_of[target][:, None]) & (sids >= 0)
        found = np.take_along_axis(places, same_sid.argmax(axis=1)[:, None], axis=1)[:, 0]
        same_item = (rows == target[:, None]) & (rows >= 0)
        return Ranking(np.where(same_sid.any(axis=1), found, 0), _first(same_item), rows)


def make_answers(
    bundle: Bundle, prompts: Prompts, allowed: NDArray[np.bool_] | None = None
) -> Answers:
    """The candidates of a bundle's catalogue.

    Args:
        allowed: `(items,)`, mask of candidate items; all by default.
    """
    catalogue = bundle.catalogue
    positions = np.arange(len(catalogue.ids)) if allowed is None else np.flatnonzero(allowed)
    whole, number_of = prompts.sids
    kept, numbers = np.unique(number_of[positions], return_inverse=True)
    sid_of = np.full(len(catalogue.ids), -1, np.int64)
    sid_of[positions] = numbers
    order = np.lexsort((positions, -bundle.users[positions], numbers))
    items = Ragged.from_lengths(positions[order], np.bincount(numbers))
    # A SID that begins another is closed in every response, also where the other is not allowed.
    trie = build_trie(whole.take(kept), prompts.closing, prompts.begins[kept])
    return Answers(trie, items, sid_of)


def read_candidates(path: Path) -> list[str]:
    """Read item ids from a text file, one id per line."""
    return [line.strip() for line in read_lines(path) if line.strip()]


def allowed_items(ids: Iterable[str], catalogue: Catalogue) -> NDArray[np.bool_]:
    """Mask of items with the given ids, `(items,)`; unknown ids are counted in a warning.

    Raises:
        UserError: for a single string, and if no id is in the catalogue.
    """
    if isinstance(ids, str):
        raise UserError(
            f"candidates are a string, not a list: {ids!r:.60}", "Give a list of item ids."
        )
    names = list(dict.fromkeys(map(str, ids)))
    allowed, unknown = known_items(names, catalogue)
    if unknown:
        warn(
            f"candidates: {len(unknown):,} of {len(names):,} ids are not in the catalogue:"
            f" {some(unknown)}"
        )
    return allowed


def known_items(ids: Sequence[str], catalogue: Catalogue) -> tuple[NDArray[np.bool_], list[str]]:
    """Mask of items with the given ids, `(items,)`, and the ids that the catalogue does not have.

    Args:
        ids: each once.

    Raises:
        UserError: if no id is in the catalogue.
    """
    positions = catalogue.find(ids)
    unknown = [ids[place] for place in np.flatnonzero(positions < 0).tolist()]
    if len(unknown) == len(ids):
        raise UserError(
            f"candidates: none of the {len(ids):,} ids is in the catalogue: {some(unknown)}",
            "Give ids of items that the model was trained with.",
        )
    allowed = np.zeros(len(catalogue.ids), bool)
    allowed[positions[positions >= 0]] = True
    return allowed, unknown


def _first(hits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Place of the first hit of each row, from 1; 0 where there is none."""
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def _among(items: Ragged, hidden: Ragged, count: int) -> NDArray[np.bool_]:
    """Which values of `items` are among the same row's `hidden`, `(values,)`; `count`
    items exist.
    """
    return np.isin(row_of(items) * count + items.values, row_of(hidden) * count + hidden.values)
