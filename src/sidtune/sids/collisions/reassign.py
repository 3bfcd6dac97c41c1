"""Every item its own SID without more tokens: the last codes of a prefix are assigned exactly."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sidtune.base.errors import UserError
from sidtune.base.resources import cores
from sidtune.sids.codebooks import Codebooks
from sidtune.sids.collisions.outcome import Outcome
from sidtune.sids.kmeans import Codes, Floats, chunks, distances

# All prefixes are compared for an item without room where there are no more than these.
MOST_PREFIXES = 1 << 22
# Of items times the prefixes behind a first code, so many are looked at together.
ROOM_AT_ONCE = 1 << 20
# Of the largest numbers that are added up: more than rounding makes of some sums in float32.
ROUNDING = np.float32(2**-18)
NOWHERE = -1


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
    surplus = np.array(sorted(homeless), np.intp)
    for some in chunks(len(surplus), int(np.prod(books.sizes[1:-1], dtype=object)), ROOM_AT_ONCE):
        items = surplus[some]
        settled[items, :-1] = room.settle(latents[items], codes[items])
    # Each thread has prefixes of its own. The solver, which takes most of the time, lets the others
    # run.
    groups, threads = list(_groups(room.number(settled[:, :-1]))), cores()

    def settle(thread: int) -> None:
        for prefix, members in groups[thread::threads]:
            _settle(members, latents, books, settled, room.used(prefix))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(settle, range(threads)))
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
        wanted = costs[:, free].astype(np.float64)
        if len(wanted) == len(free):
            # Every code gets an item, so what all items pay for it changes no choice, and without
            # it the solver searches less.
            wanted -= wanted.min(0)
        rows, columns = linear_sum_assignment(wanted)
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
        self._known: dict[int, _Prefixes] = {}
        self._used = {
            prefix: self.given[at, -1] for prefix, at in _groups(self.number(self.given[:, :-1]))
        }
        self._full_list, self._closed = list[int](), 0
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

    def settle(self, latents: Floats, codes: Codes) -> Codes:
        """Prefixes `(n, levels - 1)` for latents, one after the other: each gets the nearest one
        with room, and takes a place there.

        Where there are very many, the first levels stay those of `codes` as long as there is room
        behind them.
        """
        levels = len(self.sizes) - 1
        first = 0
        while (
            first < levels - 1 and np.prod(self.sizes[first:levels], dtype=object) > MOST_PREFIXES
        ):
            first += 1
        # What is nearest for all of them now stays so for each until it is full.
        found = (
            np.empty((len(latents), levels), np.int32)
            if first
            else self._nearest(codes[0, :0], self._products(latents, codes, 0))
        )
        for row, number in enumerate(self.number(found).tolist()):
            if first or not self.left(number):
                found[row] = self._nearest_to_one(latents[row : row + 1], codes[row], first)
                number = int(self.number(found[row : row + 1])[0])
            self.take(number, 1)
        return found

    def _nearest_to_one(self, latent: Floats, own: Codes, first: int) -> Codes:
        """The prefix for one latent, with as many of its first codes as there is room behind."""
        for fixed in range(first, -1, -1):
            found: Codes = self._nearest(own[:fixed], self._products(latent, own[None], fixed))[0]
            if found[-1] != NOWHERE:
                return found
        raise AssertionError("there are more SIDs than items")

    def _products(self, latents: Floats, codes: Codes, fixed: int) -> list[Floats]:
        """For each level from `fixed` on but the last, what its codes add to the squared distances
        of latents, less their lengths: `(n, codes)` each.
        """
        left = self.books.left_over(latents, codes, fixed) if fixed else latents
        return [-2 * (left @ book.T) for book in self.books.levels[fixed : len(self.sizes) - 1]]

    def _nearest(self, fixed: Codes, products: list[Floats]) -> Codes:
        """The prefixes `(n, levels - 1)` with room of the lowest squared distance behind the fixed
        codes; `NOWHERE` where there is none.
        """
        known = self._open(fixed)
        head, rest = products[0], np.zeros((len(products[0]), 1), np.float32)
        for each in products[1:]:
            rest = (rest[:, :, None] + each[:, None]).reshape(len(rest), -1)
        bounds = known.bounds(head, rest)
        # Of equally near prefixes that of the first code with the lower rank counts, then that of
        # the lower code.
        ranks = head + known.shortest + rest.min(1, keepdims=True)
        best = np.full(len(head), NOWHERE)
        cost = np.full(len(head), np.inf, np.float32)
        rank = np.full(len(head), -np.inf, np.float32)
        rows = np.arange(len(head))
        # One first code after the other, until no other can have a nearer prefix.
        while len(rows):
            firsts = bounds[rows].argmin(1)
            bound = bounds[rows, firsts]
            looks = (bound <= cost[rows]) & (bound < np.inf)
            rows, firsts = rows[looks], firsts[looks]
            bounds[rows, firsts] = np.inf
            costs = known.lengths[firsts]
            costs += rest[rows]
            costs += head[rows, firsts][:, None]
            behind = costs.argmin(1)
            lowest, theirs = costs[np.arange(len(rows)), behind], ranks[rows, firsts]
            sooner = theirs < rank[rows]
            sooner |= (theirs == rank[rows]) & (firsts < best[rows] // rest.shape[1])
            better = (lowest < cost[rows]) | ((lowest == cost[rows]) & sooner)
            at = rows[better]
            cost[at], rank[at] = lowest[better], theirs[better]
            best[at] = firsts[better] * rest.shape[1] + behind[better]
        sizes = self.sizes[len(fixed) : len(self.sizes) - 1]
        prefixes = np.full((len(best), len(self.sizes) - 1), NOWHERE, np.int32)
        there = best != NOWHERE
        prefixes[there, : len(fixed)] = fixed
        prefixes[there, len(fixed) :] = np.stack(np.unravel_index(best[there], sizes), axis=1)
        return prefixes

    def _open(self, fixed: Codes) -> _Prefixes:
        """Prefixes behind the fixed codes, those without room at an infinite length."""
        known = self._behind(len(fixed))
        if not len(fixed):
            # Those that have been filled since.
            known.lengths.reshape(-1)[self._full_list[self._closed :]] = np.inf
            self._closed = len(self._full_list)
            return known
        levels = len(self.sizes) - 1
        zeros = np.zeros(levels - len(fixed), np.int32)
        start = int(self.number(np.append(fixed, zeros)[None])[0])
        full = np.array(self._full_list, np.int64) - start
        lengths = known.lengths.copy()
        lengths.reshape(-1)[full[(full >= 0) & (full < lengths.size)]] = np.inf
        return known._replace(lengths=lengths)

    def _behind(self, fixed: int) -> _Prefixes:
        """All sums of rows, one of each level from `fixed` on but the last."""
        if fixed not in self._known:
            books = self.books.levels[fixed : len(self.sizes) - 1]
            sums = np.zeros((1, books[0].shape[1] if books else 1), np.float32)
            for book in books[:-1]:
                sums = (sums[:, None] + book).reshape(-1, book.shape[1])
            lengths = (sums * sums).sum(1)
            for book in books[-1:]:
                lengths = (lengths[:, None] + (book * book).sum(1) + 2 * sums @ book.T).ravel()
            lengths = lengths.reshape(self.sizes[fixed], -1)
            floor = lengths.min(0)
            above, longest = (lengths - floor).min(1), float(lengths.max())
            self._known[fixed] = _Prefixes(lengths, lengths.min(1), floor, above, longest)
        return self._known[fixed]


class _Prefixes(NamedTuple):
    """Prefixes by their first code and the codes behind it; all but `lengths` as if every one had
    room.

    Args:
        lengths: squared, infinite for those without room, `(first codes, others)`.
        shortest: the least length of each first code, `(first codes,)`.
        floor: the least length of the others, `(others,)`.
        above: how far the lengths of each first code are above `floor` at least, `(first codes,)`.
        longest: the greatest length.
    """

    lengths: Floats
    shortest: Floats
    floor: Floats
    above: Floats
    longest: float

    def bounds(self, head: Floats, rest: Floats) -> Floats:
        """What no prefix of a first code costs less than, `(n, first codes)`.

        Args:
            head: what first codes add to a prefix's length, `(n, first codes)`.
            rest: what the others add, `(n, others)`.
        """
        largest = self.longest + float(np.abs(head).max()) + float(np.abs(rest).max())
        least = (rest + self.floor).min(1, keepdims=True) - ROUNDING * np.float32(largest)
        found: Floats = head + self.above + least
        return found
