"""Candidates of all sources, and everything that the sources know about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, row_of
from sidtune.base.terminal import progress
from sidtune.config.rank import SourceName
from sidtune.ranker.pairs import Asked, Floats, Pairs
from sidtune.ranker.sources.base import Source

Sources = Mapping[SourceName, Source]


@dataclass(frozen=True)
class Table:
    """Candidates and their features.

    Args:
        pairs: rows and candidates.
        features: `(pairs, columns)`; NaN where a source knows nothing.
        columns: names of the columns.
        owner: the source of each column.
        named: `(pairs,)`, a bit for each source that named the candidate, by its place in
            `sources`.
        sources: in the order of their columns.
    """

    pairs: Pairs
    features: Floats
    columns: tuple[str, ...]
    owner: tuple[SourceName, ...]
    named: NDArray[np.uint16]
    sources: tuple[SourceName, ...]

    def of(self, source: SourceName) -> Floats:
        """The columns of one source."""
        return self.features[:, [owner == source for owner in self.owner]]

    def without(self, source: SourceName) -> Table:
        """As if a source did not exist: without its columns, and without candidates that it alone
        named.
        """
        if source not in self.sources:
            return self
        bit = np.uint16(1 << self.sources.index(source))
        kept = [place for place, owner in enumerate(self.owner) if owner != source]
        left = self.only((self.named & ~bit) > 0)
        return replace(
            left,
            features=left.features[:, kept],
            columns=tuple(self.columns[place] for place in kept),
            owner=tuple(self.owner[place] for place in kept),
        )

    def sources_of(self, items: Ragged) -> list[tuple[SourceName, ...]]:
        """The sources that named each item of some lists of candidates, `(items,)` of them."""
        keys = row_of(items) * self.pairs.items + items.values
        named = self.named[np.searchsorted(self.pairs.keys, keys)]
        return [
            tuple(name for bit, name in enumerate(self.sources) if bits >> bit & 1)
            for bits in named.tolist()
        ]

    def of_rows(self, kept: NDArray[np.bool_]) -> Table:
        """The candidates of some rows, `(rows,)` marked; the others are left without any."""
        return self.only(kept[self.pairs.row])

    def only(self, chosen: NDArray[np.bool_]) -> Table:
        """Some of the candidates, `(pairs,)` marked."""
        pairs = replace(self.pairs, row=self.pairs.row[chosen], item=self.pairs.item[chosen])
        return replace(self, pairs=pairs, features=self.features[chosen], named=self.named[chosen])


def tables(sources: Sources, asked: Asked, bar: bool = True) -> Iterator[Table]:
    """Ask every source, some rows at a time: a table for each part of the rows."""
    chunks = asked.chunks()
    for chunk in progress(chunks, "candidates", len(asked), len) if bar else chunks:
        yield _tabulate(sources, chunk)


def tabulate(sources: Sources, asked: Asked, bar: bool = True) -> Table:
    """One table of all rows, as fitting needs it; for many rows it is large."""
    parts = list(tables(sources, asked, bar))
    starts = np.cumsum([0, *(part.pairs.rows for part in parts)])[:-1]
    pairs = Pairs(
        np.concatenate([part.pairs.row + at for part, at in zip(parts, starts, strict=True)]),
        np.concatenate([part.pairs.item for part in parts]),
        len(asked),
        asked.items,
    )
    return replace(
        parts[0],
        pairs=pairs,
        features=np.concatenate([part.features for part in parts]),
        named=np.concatenate([part.named for part in parts]),
    )


def _tabulate(sources: Sources, asked: Asked) -> Table:
    lists = [source.candidates(asked) for source in sources.values()]
    pairs = Pairs.union(lists, asked)
    features = [source.features(asked, pairs) for source in sources.values()]
    return Table(
        pairs,
        np.concatenate(features, axis=1),
        tuple(name for source in sources.values() for name in source.columns),
        tuple(name for name, source in sources.items() for _ in source.columns),
        _named(pairs, lists),
        tuple(sources),
    )


def _named(pairs: Pairs, lists: Sequence[Ragged]) -> NDArray[np.uint16]:
    named = np.zeros(len(pairs), np.uint16)
    for bit, part in enumerate(lists):
        keys = np.unique(row_of(part) * pairs.items + part.values)
        named |= (pairs.find(keys) >= 0).astype(np.uint16) << np.uint16(bit)
    return named
