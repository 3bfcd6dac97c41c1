"""Every item its own SID without more tokens: the last codes of a prefix are assigned exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sidtune.base.errors import UserError
from sidtune.sids.codebooks import Codebooks
from sidtune.sids.collisions.outcome import Outcome
from sidtune.sids.kmeans import Codes, Floats, distances

# All prefixes are compared for an item without room where there are no more than these.
MOST_PREFIXES = 1 << 22


def resolve(latents: Floats, books: Codebooks, codes: Codes) -> Outcome:
    """Distinct codes: within each prefix the last ones that are nearest in sum (Hungarian
    algorithm).

    Raises:
        UserError: where the levels have fewer SIDs than there are items.
    """
    nobody = np.empty((0, codes.shape[1]), np.int32)
    return resolve_beside(latents, books, codes, nobody)


def resolve_beside(latents: Floats, books: Codebooks, codes: Codes, taken: Codes) -> Outcome:
    """As `resolve`, beside SIDs that are taken already, `(m, levels)`.

    An item whose prefix has no code left goes to the nearest prefix that has one. Those nearest to
    the prefix stay.
    """
    room = _Room(books, taken)
    if room.free < len(codes):
        sizes = " × ".join(map(str, books.sizes))
        raise UserError(
            f"sids.levels: {sizes} = {room.free + len(room.given):,} SIDs, and"
            f" {len(codes) + len(room.given):,} items need one each",
            "Give more or larger levels, or sids.collisions: keep.",
        )
    settled = codes.copy()
    prefixes = room.number(codes[:, :-1])
    homeless = []
    for prefix, members in _groups(prefixes):
        spare = len(members) - room.left(prefix)
        if spare > 0:
            left = books.left_over(latents[members], codes[members], codes.shape[1] - 1)
            members = members[np.argsort((left * left).sum(1), kind="stable")]
            homeless.extend(members[-spare:].tolist())
        room.take(prefix, len(members) - max(spare, 0))
    for item in sorted(homeless):
        settled[item, :-1] = room.nearest(latents[item], codes[item])
        room.take(int(room.number(settled[item : item + 1, :-1])[0]), 1)
    for prefix, members in _groups(room.number(settled[:, :-1])):
        _settle(members, latents, books, settled, room.used(prefix))
    moved = int((settled != codes).any(1).sum())
    return Outcome(settled, np.full(len(codes), -1, np.int32), moved, len(homeless))


def _settle(
    members: NDArray[np.intp],
    latents: Floats,
    books: Codebooks,
    codes: Codes,
    used: NDArray[np.intp],
) -> None:
    """Give the items of one prefix distinct last codes that nobody uses, in place."""
    left = books.left_over(latents[members], codes[members], codes.shape[1] - 1)
    costs = distances(left, books.levels[-1])
    costs[:, used] = np.inf
    best = costs.argmin(1)
    if len(np.unique(best)) < len(best):
        free = np.setdiff1d(np.arange(costs.shape[1]), used)
        rows, columns = linear_sum_assignment(costs[:, free])
        best[rows] = free[columns]
    codes[members, -1] = best


def _groups(prefixes: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each prefix with the places of its items, ascending."""
    order = np.argsort(prefixes, kind="stable")
    found, starts = np.unique(prefixes[order], return_index=True)
    if len(found):
        yield from zip(found.tolist(), np.split(order, starts[1:]), strict=True)


class _Room:
    """How many last codes each prefix has left.

    Args:
        books: give the sizes of the levels.
        taken: `(m, levels)`, SIDs that are used already.
    """

    def __init__(self, books: Codebooks, taken: Codes) -> None:
        self.books, self.sizes = books, books.sizes
        self.given = np.unique(taken, axis=0)
        self.free = int(np.prod(self.sizes, dtype=object)) - len(self.given)
        self._counts: dict[int, int] = {}
        self._known: dict[int, Floats] = {}
        self._used = {
            prefix: self.given[at, -1] for prefix, at in _groups(self.number(self.given[:, :-1]))
        }
        self._full, self._full_list = np.empty(0, np.int64), list[int]()
        for prefix, codes in self._used.items():
            self.take(prefix, len(codes))

    def number(self, prefixes: Codes) -> NDArray[np.int64]:
        """Prefixes `(n, levels - 1)` as one number each."""
        found = np.zeros(len(prefixes), np.int64)
        for level, size in enumerate(self.sizes[:-1]):
            found = found * size + prefixes[:, level]
        return found

    def left(self, prefix: int) -> int:
        """How many last codes of a prefix nobody has."""
        return self.sizes[-1] - self._counts.get(prefix, 0)

    def take(self, prefix: int, count: int) -> None:
        """Note that so many more are taken."""
        self._counts[prefix] = self._counts.get(prefix, 0) + count
        if count and not self.left(prefix):
            self._full_list.append(prefix)

    def used(self, prefix: int) -> NDArray[np.intp]:
        """The last codes of a prefix that were taken before."""
        return np.asarray(self._used.get(prefix, ()), np.intp)

    def nearest(self, latent: Floats, codes: Codes) -> Codes:
        """The prefix `(levels - 1,)` with room that is nearest to a latent `(latent,)`.

        Where there are very many, the first levels stay those of `codes` as long as there is room
        behind them.
        """
        levels = len(self.sizes) - 1
        first = 0
        while (
            first < levels - 1 and np.prod(self.sizes[first:levels], dtype=object) > MOST_PREFIXES
        ):
            first += 1
        for fixed in range(first, -1, -1):
            costs = self._costs(latent, codes[:fixed])
            sizes = self.sizes[fixed:levels]
            start = int(
                self.number(np.append(codes[:fixed], np.zeros(levels - fixed, np.int32))[None])[0]
            )
            full = self._full_prefixes() - start
            costs[full[(full >= 0) & (full < len(costs))]] = np.inf
            best = int(costs.argmin())
            if np.isfinite(costs[best]):
                return np.append(codes[:fixed], np.unravel_index(best, sizes)).astype(np.int32)
        raise AssertionError("there are more SIDs than items")

    def _full_prefixes(self) -> NDArray[np.int64]:
        """The prefixes without any last code left."""
        if len(self._full) < len(self._full_list):
            self._full = np.array(self._full_list, np.int64)
        return self._full

    def _costs(self, latent: Floats, fixed: Codes) -> Floats:
        """Squared distances of a latent to all prefixes behind the fixed codes, less its own
        squared length: flat, in the order of their numbers.
        """
        left = latent.copy()
        for level, code in enumerate(fixed):
            left = left - self.books.levels[level][code]
        costs = np.zeros(1, np.float32)
        for book in self.books.levels[len(fixed) : len(self.sizes) - 1]:
            costs = (costs[:, None] - 2 * (book @ left)).ravel()
        return costs + self._lengths(len(fixed))

    def _lengths(self, fixed: int) -> Floats:
        """Squared lengths of all sums of rows, one of each level from `fixed` on but the last."""
        if fixed not in self._known:
            books = self.books.levels[fixed : len(self.sizes) - 1]
            sums = np.zeros((1, books[0].shape[1] if books else 1), np.float32)
            for book in books[:-1]:
                sums = (sums[:, None] + book).reshape(-1, book.shape[1])
            lengths = (sums * sums).sum(1)
            for book in books[-1:]:
                lengths = (lengths[:, None] + (book * book).sum(1) + 2 * sums @ book.T).ravel()
            self._known[fixed] = lengths
        return self._known[fixed]
