"""Items, their texts and their SIDs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.data.files import read_json_object
from sidtune.data.ids import Names, canonical
from sidtune.data.literals import MissingCommasError, parse_list
from sidtune.errors import UserError

SHOWN = 5
UNWRITABLE = set("\0\r\n")


@dataclass(frozen=True)
class Catalogue:
    """All items.

    Args:
        ids: item ids, in the order of the index file.
        titles, descriptions: one text an item; where there is no description, the title. All empty where the
            catalogue is known by SIDs alone.
        sids: SID tokens of each item; depths may differ, and several items may share a SID.
    """

    ids: list[str]
    titles: list[str]
    descriptions: list[str]
    sids: list[tuple[str, ...]]

    @cached_property
    def has_texts(self) -> bool:
        """Whether items have titles."""
        return any(self.titles)

    @cached_property
    def sid_tokens(self) -> list[str]:
        """Every SID token once, sorted."""
        return sorted({token for sid in self.sids for token in sid})

    @cached_property
    def items_of(self) -> dict[tuple[str, ...], list[int]]:
        """SID → positions of the items that have it."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, sid in enumerate(self.sids):
            groups.setdefault(sid, []).append(position)
        return groups

    @cached_property
    def _names(self) -> Names:
        return Names.of(self.ids)

    @cached_property
    def alike(self) -> list[list[str]]:
        """Groups of ids that are one number: `17` and `17.0`."""
        groups: dict[str, list[str]] = {}
        for item, number in zip(self.ids, canonical(pa.array(self.ids, pa.large_string())).to_pylist(), strict=True):
            groups.setdefault(number, []).append(item)
        return [group for group in groups.values() if len(group) > 1]

    def positions(self, ids: pa.Array) -> NDArray[np.int32]:
        """Catalogue positions of item ids, `(n,)`, where `17.0` may name item `17`; -1 where there is no such item."""
        return self._names.positions(ids)


def read_catalogue(items: Path | None, index: Path) -> Catalogue:
    """Read `.item.json` (id → title, description, …), if there is one, and `.index.json` (id → SID tokens).

    Raises:
        UserError: for items without SID, SIDs without item, records of another shape, and as `refuse_unnameable`.
    """
    sids = read_json_object(index)
    ids = list(sids)
    titles, descriptions = _texts(items, sids, index) if items else ([""] * len(ids), [""] * len(ids))
    catalogue = Catalogue(ids, titles, descriptions, [_sid(sids[item], item, index) for item in ids])
    refuse_unnameable(catalogue, index)
    return catalogue


def tell_apart(catalogue: Catalogue, path: Path) -> Catalogue:
    """Give the items of a shared SID one token more each, which counts them in catalogue order (Rajput et al., 2023).

    Raises:
        UserError: where the catalogue has one of these tokens already.
    """
    sids = list(catalogue.sids)
    for sid, items in catalogue.items_of.items():
        for number, item in enumerate(items if len(items) > 1 else ()):
            sids[item] = (*sid, f"<item_{number}>")
    added = {sid[-1] for sid, given in zip(sids, catalogue.sids, strict=True) if sid != given}
    if known := sorted(added & set(catalogue.sid_tokens)):
        message = f"{path}: has the SID token {known[0]} already, and data.unique_sids would add it"
        raise UserError(message, "Rename it there, or set data.unique_sids: false.")
    return replace(catalogue, sids=sids)


def refuse_unnameable(catalogue: Catalogue, path: Path) -> None:
    """Refuse ids and tokens that cannot be written where they are asked for, such as in a list of candidates."""
    for item in catalogue.ids:
        if not item or item != item.strip() or UNWRITABLE & set(item):
            message = f"{path}: the item id {item!r:.80} is empty, has blanks around it, or holds a NUL or a line break"
            raise UserError(message, "Give the item another id, here and in every file that mentions it.")
    for token in catalogue.sid_tokens:
        if not token or UNWRITABLE & set(token):
            message = f"{path}: the SID token {token!r:.80} is empty, or holds a NUL or a line break"
            raise UserError(message, "Write it otherwise, wherever it stands.")


def read_texts(items: Path) -> list[str]:
    """Titles and descriptions of an `.item.json`, to train a tokenizer on."""
    records = read_json_object(items)
    titles = [_title(record, item, items) for item, record in records.items()]
    return titles + [_description(record, item, items) for item, record in records.items()]


def _texts(items: Path, sids: Mapping[str, Any], index: Path) -> tuple[list[str], list[str]]:
    """Titles and descriptions, in the order of the index."""
    records = _as_indexed(read_json_object(items), sids, items, index)
    _same_items(records, sids, items, index)
    titles = [_title(records[item], item, items) for item in sids]
    return titles, [_description(records[item], item, items) for item in sids]


def _as_indexed(records: dict[str, Any], sids: Mapping[str, Any], items: Path, index: Path) -> dict[str, Any]:
    """Records by the ids that the index writes: its `17` may be `17.0` among the items."""
    if records.keys() == sids.keys():
        return records
    names = list(sids)
    places = Names.of(names).positions(pa.array(list(records), pa.large_string()))
    found: dict[str, Any] = {}
    for given, place in zip(records, places.tolist(), strict=True):
        name = given if place < 0 else names[place]
        if name in found:
            message = f"{items}: two items are {name} of {index.name}, one of them written {given}"
            raise UserError(message, "Which one counts? Remove the other.")
        found[name] = records[given]
    return found


def _same_items(records: Mapping[str, Any], sids: Mapping[str, Any], items: Path, index: Path) -> None:
    without_sid = [item for item in records if item not in sids]
    if without_sid:
        raise UserError(
            f"{items}: {len(without_sid):,} items have no SID in {index.name}: {_first(without_sid)}",
            "Take items and index from the same build, or remove these items.",
        )
    without_item = [item for item in sids if item not in records]
    if without_item:
        raise UserError(
            f"{index}: {len(without_item):,} SIDs have no item in {items.name}: {_first(without_item)}",
            "Take items and index from the same build, or remove these SIDs.",
        )


def _title(record: Any, item: str, path: Path) -> str:
    if not isinstance(record, dict):
        raise UserError(f"{path}: item {item}: expected an object with a title, found {record!r:.60}")
    title = record.get("title")
    if not isinstance(title, str) or not title.strip():
        raise UserError(f"{path}: item {item} has no title (found {title!r:.60})", "Every item needs a title.")
    return title


def _description(record: Mapping[str, Any], item: str, path: Path) -> str:
    """The longest non-empty entry of a text, a list, or a list literal in a text; without one, the title."""
    given = record.get("description")
    if given is None:
        given = []
    if isinstance(given, str):
        given = _literal_or_text(given, f"{path}: item {item}: description")
    if not isinstance(given, list) or not all(isinstance(entry, str) for entry in given):
        raise UserError(f"{path}: item {item}: expected a text or a list of texts as description, found {given!r:.60}")
    return max((entry.strip() for entry in given), key=len, default="") or str(record["title"])


def _literal_or_text(text: str, where: str) -> list[str]:
    if text.lstrip().startswith("["):
        try:
            return parse_list(text)
        except MissingCommasError as error:
            remedy = "Write a list, ['one', 'two']; NumPy arrays become lists by their method tolist()."
            raise UserError(f"{where}: {error}, found {text!r:.80}", remedy) from None
        except ValueError:
            return [text]
    return [text]


def _sid(tokens: Any, item: str, path: Path) -> tuple[str, ...]:
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{path}: item {item}: expected a list of SID tokens, found {tokens!r:.60}")
    return tuple(tokens)


def _first(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN]) + (" …" if len(ids) > SHOWN else "")
