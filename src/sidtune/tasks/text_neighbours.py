"""Items that no training row holds, each beside an item with a similar text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sidtune.base.ragged import Ragged
from sidtune.config.sids import SidsConfig
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Rows
from sidtune.tasks.base import Items, Part, Placeholders, Source, Task, TaskOptions
from sidtune.tasks.sid_sequence import FORM, refuse_nested
from sidtune.tasks.sid_sequence_reversed import FORM as REVERSED

# Similarities that are held at once.
CELLS = 1 << 25
# Cosines up to here are rounding: nothing of the one text is in the other.
ROUNDING = 1e-6
# Items that are looked at to see whether any is like another.
MOST_COMPARED = 10_000


class TextNeighboursOptions(TaskOptions):
    """`neighbours`: how many other items each item stands beside."""

    neighbours: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2,
        description=(
            "how many of the items with the most similar texts each item is paired with;"
            " each pair makes two examples"
        ),
    )


class TextNeighbours(Task):
    """Histories of two items: one that training rows hold, then one with a similar text that they
    do not hold; and the same, newest item first. All are targets.

    Without them nothing says that such an item is ever bought, and a model gives it hardly any
    chance. The templates are those of `sid_sequence` and `sid_sequence_reversed`.
    """

    help: ClassVar[str] = (
        "each item that is in no training row, after an item with a similar text, in both"
        " directions; mix it with `sid_sequence` and `sid_sequence_reversed`"
    )
    is_sequence: ClassVar[bool] = True
    options: ClassVar[type[TaskOptions]] = TextNeighboursOptions
    forms: ClassVar[Mapping[str, Placeholders]] = {
        FORM: Placeholders(prompt=(), response=("sequence_sids",)),
        REVERSED: Placeholders(prompt=(), response=("sequence_sids",)),
    }

    def size(self, source: Source) -> int:
        """Number of items without training rows; none in other splits, and without texts."""
        return len(unseen(source.catalogue, source.rows)) if source.split == "train" else 0

    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """Two parts for each rank of neighbours, one for each order."""
        assert isinstance(options, TextNeighboursOptions)
        refuse_nested("text_neighbours", set(source.catalogue.sids))
        items = unseen(source.catalogue, source.rows)[rows]
        if not len(items):
            return []
        parts = []
        for near in nearest(source.catalogue, source.rows, items, options.neighbours).T:
            alike = near >= 0
            known, new, chosen = near[alike], items[alike], rows[alike]
            if len(chosen):
                parts.append(_part(FORM, known, new, chosen))
                parts.append(_part(REVERSED, new, known, chosen))
        return parts

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
    first, -1 where no more are alike; fewer columns where rows hold fewer items.

    The vectors are those that `sidtune sids` makes of title and description; nearness is their
    cosine.
    """
    # They take a second to import, and this module is imported by every command.
    from sidtune.sids.items import Items as Texts
    from sidtune.sids.vectors import VECTORS
    from sidtune.sids.vectors.source import Source as TextSource
    from sidtune.sids.vectors.source import unit

    texts = [_text(catalogue, item) for item in range(len(catalogue.ids))]
    read = Texts(catalogue.ids, catalogue.titles, texts)
    vectors = unit(VECTORS["text"]().fit(TextSource(read, SidsConfig()))[0])
    known = np.flatnonzero(_held(catalogue, rows))
    most = min(most, len(known))
    found = np.empty((len(items), most), np.int64)
    block = max(1, CELLS // len(known))
    for first in range(0, len(items), block):
        cosines = vectors[items[first : first + block]] @ vectors[known].T
        near = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(cosines, near, 1), axis=1)
        near = np.take_along_axis(near, order, 1)
        alike = np.take_along_axis(cosines, near, 1) > ROUNDING
        found[first : first + block] = np.where(alike, known[near], -1)
    return found


def any_alike(catalogue: Catalogue, rows: Rows, items: NDArray[np.int64]) -> bool:
    """Whether one of these items, or of very many the first, has a word in common with an item of
    rows; then `nearest` finds something.
    """
    from sidtune.sids.vectors.words import terms

    compared = items[:MOST_COMPARED].tolist()
    words = {term for item in compared for term in terms(_text(catalogue, item))}
    known = np.flatnonzero(_held(catalogue, rows)).tolist() if words else []
    return any(not words.isdisjoint(terms(_text(catalogue, item))) for item in known)


def _text(catalogue: Catalogue, item: int) -> str:
    title, text = catalogue.titles[item], catalogue.descriptions[item]
    return title if text == title else f"{title}\n{text}"


def _held(catalogue: Catalogue, rows: Rows) -> NDArray[np.bool_]:
    """Whether a row holds an item, as target or in its history, `(items,)`."""
    held = np.zeros(len(catalogue.ids), bool)
    held[rows.target] = True
    held[rows.history.values] = True
    return held


def _part(
    form: str, first: NDArray[np.int64], second: NDArray[np.int64], rows: NDArray[np.int64]
) -> Part:
    """Histories of two items, both of them targets."""
    pairs = Ragged.from_lengths(
        np.stack([first, second], axis=1).ravel(), np.full(len(first), 2, np.int64)
    )
    columns = {"sequence_sids": Items(pairs, "sid", many=True)}
    context = np.zeros(len(first), np.int64)
    return Part(form, columns, rows, context=context, newest_first=form == REVERSED)
