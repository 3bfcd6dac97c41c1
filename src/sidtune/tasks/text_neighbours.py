"""An item → an item with a similar text, for items that no training row holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sidtune.base.ragged import Ragged
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Rows
from sidtune.tasks.base import Items, Part, Placeholders, Source, Task, TaskOptions
from sidtune.tasks.sid_sequence import FORM, refuse_nested

# Similarities that are held at once.
CELLS = 1 << 25


class TextNeighboursOptions(TaskOptions):
    """`neighbours`: how many examples each item gets, one for each of its neighbours."""

    neighbours: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2, description="examples of each item: one for each of its nearest neighbours"
    )


class TextNeighbours(Task):
    """Examples of every item that no training row holds: a history of one item with a similar text,
    which training rows do hold, and the item as the target.

    Without them nothing says that such an item is ever bought, and the model gives it no chance.
    The prompt is that of `sid_sequence`.
    """

    help: ClassVar[str] = (
        "an item → an item with a similar text that no training row holds, so that the model can"
        " recommend it; mix it with `sid_sequence`"
    )
    options: ClassVar[type[TaskOptions]] = TextNeighboursOptions
    forms: ClassVar[Mapping[str, Placeholders]] = {
        FORM: Placeholders(prompt=(), response=("sequence_sids",))
    }

    def size(self, source: Source) -> int:
        """Number of items without training rows; none in other splits, and without texts."""
        return len(unseen(source.catalogue, source.rows)) if source.split == "train" else 0

    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """One part for each rank of neighbours."""
        assert isinstance(options, TextNeighboursOptions)
        refuse_nested("text_neighbours", set(source.catalogue.sids))
        items = unseen(source.catalogue, source.rows)[rows]
        if not len(items):
            return []
        near = nearest(source.catalogue, source.rows, items, options.neighbours)
        return [_part(column, items, rows) for column in near.T]

    @property
    def needs_texts(self) -> bool:
        """It compares titles and descriptions, and writes none."""
        return True


def unseen(catalogue: Catalogue, rows: Rows) -> NDArray[np.int64]:
    """Positions of the items that no row holds, `(n,)`; none where items have no texts."""
    none = np.empty(0, np.int64)
    return np.flatnonzero(~_held(catalogue, rows)) if catalogue.has_texts else none


def nearest(
    catalogue: Catalogue, rows: Rows, items: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """The items of rows whose texts are nearest to those of other items, `(items, most)`, nearest
    first; fewer columns where rows hold fewer items.

    The vectors are those that `sidtune sids` makes of title and description; nearness is their
    cosine.
    """
    # What makes vectors takes a second to import, and hardly any run needs it.
    from sidtune.config.sids import SidsConfig
    from sidtune.sids.items import Items as Texts
    from sidtune.sids.vectors import VECTORS
    from sidtune.sids.vectors.source import Source as TextSource
    from sidtune.sids.vectors.source import unit

    texts = [
        title if text == title else f"{title}\n{text}"
        for title, text in zip(catalogue.titles, catalogue.descriptions, strict=True)
    ]
    read = Texts(catalogue.ids, catalogue.titles, texts)
    vectors = unit(VECTORS["text"]().fit(TextSource(read, SidsConfig()))[0])
    known = np.flatnonzero(_held(catalogue, rows))
    most = min(most, len(known))
    found = np.empty((len(items), most), np.int64)
    block = max(1, CELLS // len(known))
    for first in range(0, len(items), block):
        cosines = vectors[items[first : first + block]] @ vectors[known].T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
        found[first : first + block] = known[order]
    return found


def _held(catalogue: Catalogue, rows: Rows) -> NDArray[np.bool_]:
    """Whether a row holds an item, as target or in its history, `(items,)`."""
    held = np.zeros(len(catalogue.ids), bool)
    held[rows.target] = True
    held[rows.history.values] = True
    return held


def _part(neighbours: NDArray[np.int64], items: NDArray[np.int64], rows: NDArray[np.int64]) -> Part:
    pairs = Ragged.from_lengths(
        np.stack([neighbours, items], axis=1).ravel().astype(np.int32),
        np.full(len(items), 2, np.int64),
    )
    columns = {"sequence_sids": Items(pairs, "sid", many=True)}
    return Part(FORM, columns, rows, context=np.ones(len(items), np.int64))
