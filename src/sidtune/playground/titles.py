"""Finding items by words of their titles, as somebody types."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.data.catalogue import Catalogue


@dataclass(frozen=True)
class Match:
    """An item that was found.

    Args:
        users: training users of the item.
    """

    item_id: str
    title: str
    users: int


class Titles:
    """The items of one or more models, an item of several models once.

    A hundred thousand titles are looked through in milliseconds, so there is no index.

    Args:
        catalogues: of the models, with the number of training users of each item, `(items,)`;
            titles are those of the first one that has an item.
    """

    def __init__(self, catalogues: Sequence[tuple[Catalogue, NDArray[np.int64]]]) -> None:
        items: dict[str, Match] = {}
        for catalogue, users in catalogues:
            rows = zip(catalogue.ids, catalogue.titles, users.tolist(), strict=True)
            for item, title, count in rows:
                items.setdefault(item, Match(item, title, count))
        found = list(items.values())
        order = np.argsort([-item.users for item in found], kind="stable")
        self._items = [found[place] for place in order]
        self._texts = [f" {plain(item.title)}" for item in self._items]
        self._by_id = items

    def find(self, text: str, limit: int = 20) -> tuple[list[Match], int]:
        """Items whose titles hold all words of a text, and how many there are; the item of that id
        first, then titles with words that begin so, then others, each by popularity.
        """
        words = sorted(plain(text).split(), key=len, reverse=True)
        named = self._by_id.get(text.strip())
        rows = self._holding(words) if words or not named else []
        begin = self._holding([f" {word}" for word in words], rows)
        begun = set(begin)
        ordered = begin + [row for row in rows if row not in begun]
        items = [self._items[row] for row in ordered[: limit + 1]]
        if named:
            items = [named, *(item for item in items if item is not named)]
        known = named is not None and all(self._items[row] is not named for row in ordered)
        return items[:limit], len(ordered) + known

    def title(self, item: str) -> str | None:
        """The title of an item; None where no model knows it."""
        found = self._by_id.get(item)
        return found.title if found else None

    def _holding(self, words: Sequence[str], rows: Sequence[int] | None = None) -> list[int]:
        """Of some rows, or of all, those whose texts hold all words, in order."""
        texts = self._texts
        found = list(range(len(texts)) if rows is None else rows)
        for word in words:
            found = [row for row in found if word in texts[row]]
        return found


def plain(text: str) -> str:
    """A text for comparing: no case, no accents, and single spaces in place of other signs."""
    if not text.isascii():
        split = unicodedata.normalize("NFKD", text)
        text = "".join(sign for sign in split if not unicodedata.combining(sign))
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()
