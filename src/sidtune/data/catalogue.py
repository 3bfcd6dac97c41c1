"""The catalogue: items with their texts and SIDs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.base.errors import UserError, some
from sidtune.data.item_files import TITLE_COLUMNS, columns_of, first_of, like_usual, read_records
from sidtune.files.ids import Names, as_id, canonical, is_text, number_text
from sidtune.files.literals import MissingCommasError, parse_list
from sidtune.files.text import read_json_object

SHOWN = 5
UNWRITABLE = set("\0\r\n")
NO_TITLE, NO_TITLE_PLURAL = " has no title", " have no title"


@dataclass(frozen=True)
class Catalogue:
    """The catalogue of all items.

    Args:
        ids: item ids, in the order of the index file.
        titles, descriptions: one text per item; without a description, the title. All empty if only
            SIDs are given.
        sids: SID tokens of each item; depths may differ, and several items may share a SID.
        codes: the codes of each item's SID if the index contains numbers; empty if it contains
            tokens.
    """

    ids: list[str]
    titles: list[str]
    descriptions: list[str]
    sids: list[tuple[str, ...]]
    codes: list[list[int]] = field(default_factory=list, compare=False)

    def names_as(self, other: Catalogue) -> bool:
        """Whether both have the same items in the same order, with the same SIDs."""
        return (self.ids, self.sids) == (other.ids, other.sids)

    @cached_property
    def has_texts(self) -> bool:
        """Whether items have titles."""
        return any(self.titles)

    @cached_property
    def sid_tokens(self) -> list[str]:
        """The distinct SID tokens, sorted."""
        return sorted({token for sid in self.sids for token in sid})

    @cached_property
    def items_of(self) -> dict[tuple[str, ...], list[int]]:
        """SID → positions of its items."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, sid in enumerate(self.sids):
            groups.setdefault(sid, []).append(position)
        return groups

    @cached_property
    def _names(self) -> Names:
        return Names.of(self.ids)

    @cached_property
    def alike(self) -> list[list[str]]:
        """Groups of ids that are the same number: `17` and `17.0`."""
        groups: dict[str, list[str]] = {}
        for item, number in zip(
            self.ids, canonical(pa.array(self.ids, pa.large_string())).to_pylist(), strict=True
        ):
            groups.setdefault(number, []).append(item)
        return [group for group in groups.values() if len(group) > 1]

    def positions(self, ids: pa.Array) -> NDArray[np.int32]:
        """Catalogue positions of item ids, `(n,)`; `17.0` may refer to item `17`; -1 for unknown
        ids.
        """
        return self._names.positions(ids)

    def find(self, ids: Sequence[str]) -> NDArray[np.int32]:
        """The same for any strings: one that is no text, with half of a surrogate pair, is
        unknown.
        """
        try:
            return self.positions(pa.array(ids, pa.large_string()))
        except UnicodeEncodeError:
            texts = [item if is_text(item) else None for item in ids]
            return self.positions(pa.array(texts, pa.large_string()))


def read_catalogue(items: Path | None, index: Path) -> Catalogue:
    """Read items (`.item.json` or Parquet, see `read_records`), if given, and `.index.json` (id →
    SID tokens or codes).

    Codes `[3, 14, 159]` become the tokens `<a_3>`, `<b_14>`, `<c_159>`.

    Raises:
        UserError: for items without SID, SIDs without item, invalid records, and as
            `refuse_unnameable`.
    """
    entries = read_json_object(index)
    ids = list(entries)
    titles, descriptions = (
        _texts(items, entries, index) if items else ([""] * len(ids), [""] * len(ids))
    )
    catalogue = Catalogue(ids, titles, descriptions, *_sids(entries, index))
    refuse_unnameable(catalogue, index)
    return catalogue


def tell_apart(catalogue: Catalogue, path: Path) -> Catalogue:
    """Make SIDs unique: append a token that numbers the items of a shared SID in catalogue order
    (Rajput et al., 2023).

    Raises:
        UserError: if the catalogue already contains one of these tokens.
    """
    sids = list(catalogue.sids)
    for sid, items in catalogue.items_of.items():
        for number, item in enumerate(items if len(items) > 1 else ()):
            sids[item] = (*sid, f"<item_{number}>")
    added = {sid[-1] for sid, given in zip(sids, catalogue.sids, strict=True) if sid != given}
    if known := sorted(added & set(catalogue.sid_tokens)):
        message = (
            f"{path} already contains the SID token {known[0]}, which data.unique_sids would add"
        )
        raise UserError(message, "Rename it there, or set data.unique_sids: false.")
    return replace(catalogue, sids=sids)


def refuse_unnameable(catalogue: Catalogue, path: Path | str) -> None:
    """Refuse ids and tokens that cannot be written in text files, such as a list of candidates."""
    for item in catalogue.ids:
        if not item or item != item.strip() or UNWRITABLE & set(item):
            why = "is empty, starts or ends with white space, or contains a NUL or a line break"
            message = f"{path}: the item id {item!r:.80} {why}"
            raise UserError(message, "Change the item id, here and in every file that uses it.")
    for token in catalogue.sid_tokens:
        if not token or UNWRITABLE & set(token):
            message = (
                f"{path}: the SID token {token!r:.80} is empty, or contains a NUL or a line break"
            )
            raise UserError(message, "Rename the token wherever it is used.")


def read_texts(items: Path) -> list[str]:
    """Titles and descriptions of an item file, to train a tokenizer on."""
    titles, descriptions = _record_texts(read_records(items), items)
    return titles + descriptions


def _texts(items: Path, sids: Mapping[str, Any], index: Path) -> tuple[list[str], list[str]]:
    """Titles and descriptions, in the order of the index."""
    records = _as_indexed(read_records(items), sids, items, index)
    _same_items(records, sids, items, index)
    return _record_texts({item: records[item] for item in sids}, items)


def _record_texts(records: Mapping[str, Any], path: Path) -> tuple[list[str], list[str]]:
    """Titles and descriptions of all records; the title replaces a missing or empty description."""
    titles, descriptions, faults = [], [], _Faults(path)
    has = columns_of(records.values())
    titled, described = like_usual(has, TITLE_COLUMNS), like_usual(has, ("description",))
    for item, record in records.items():
        if not isinstance(record, dict):
            faults.add(": expected an object with a title", item, record)
            continue
        given = first_of(record, titled), first_of(record, described)
        title, description = _title(given[0]), _description(given[1], f"{path}: item {item}")
        if title is None:
            faults.add(NO_TITLE, item, given[0])
        if description is None:
            faults.add(": expected text or a list of texts as description", item, given[1])
        titles.append(title or "")
        descriptions.append(description or titles[-1])
    faults.refuse("Every item needs a title: non-blank text, or a number.")
    return titles, descriptions


class _Faults:
    """Collects invalid items by kind of fault, to report all of them at once.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[tuple[str, str]]] = {}

    def add(self, what: str, item: str, found: Any) -> None:
        """Record an item; `what` follows the item's name in the message."""
        self.counts[what] += 1
        shown = self.first.setdefault(what, [])
        if len(shown) < SHOWN:
            shown.append((item, f"(found {found!r:.60})"))

    def refuse(self, hint: str) -> None:
        """Raise `UserError` if any fault was recorded."""
        if self.counts:
            raise UserError(f"{self.path}: {'; '.join(map(self._told, self.counts))}", hint)

    def _told(self, what: str) -> str:
        count, shown = self.counts[what], self.first[what]
        if count == 1:
            item, found = shown[0]
            return f"item {item}{what} {found}"
        listed = ", ".join(map(" ".join, shown)) + (" …" if count > SHOWN else "")
        return f"{count:,} items{NO_TITLE_PLURAL if what == NO_TITLE else what}: {listed}"


def _as_indexed(
    records: dict[str, Any], sids: Mapping[str, Any], items: Path, index: Path
) -> dict[str, Any]:
    """Records by the ids of the index, whose `17` may be `17.0` in the item file."""
    if records.keys() == sids.keys():
        return records
    names = list(sids)
    places = Names.of(names).positions(pa.array(list(records), pa.large_string()))
    found: dict[str, Any] = {}
    for given, place in zip(records, places.tolist(), strict=True):
        name = given if place < 0 else names[place]
        if name in found:
            message = (
                f"{items}: two items match {name} of {index.name}; one of them is written {given}"
            )
            raise UserError(message, "Remove one of them.")
        found[name] = records[given]
    return found


def _same_items(
    records: Mapping[str, Any], sids: Mapping[str, Any], items: Path, index: Path
) -> None:
    without_sid = [item for item in records if item not in sids]
    if without_sid:
        raise UserError(
            f"{items}: {len(without_sid):,} items have no SID in {index.name}: {some(without_sid)}",
            "Use items and index from the same build, or remove these items. `sidtune sids assign`"
            " adds new items to an index that sidtune made.",
        )
    without_item = [item for item in sids if item not in records]
    if without_item:
        raise UserError(
            f"{index}: {len(without_item):,} SIDs have no item in {items.name}:"
            f" {some(without_item)}",
            "Use items and index from the same build, or remove these SIDs. Items without events"
            " stay in what `sidtune prepare` writes with catalogue.keep_untouched: true.",
        )


def _title(given: Any) -> str | None:
    """The title of a JSON value, or None if invalid; numbers become text, and 1984.0
    becomes 1984.
    """
    if type(given) in (int, float):
        return number_text(given) or None
    return given if isinstance(given, str) and given.strip() else None


def _description(given: Any, where: str) -> str | None:
    """The longest entry of a text, a list, or a list literal; None if it is none of these."""
    if given is None:
        given = []
    if isinstance(given, str):
        given = _literal_or_text(given, f"{where}: description")
    if not isinstance(given, list) or not all(isinstance(entry, str) for entry in given):
        return None
    return max((entry.strip() for entry in given), key=len, default="")


def _literal_or_text(text: str, where: str) -> list[str]:
    if text.lstrip().startswith("["):
        try:
            return parse_list(text)
        except MissingCommasError as error:
            remedy = "Write a list, ['one', 'two']; convert NumPy arrays with tolist()."
            raise UserError(f"{where}: {error}, found {text!r:.80}", remedy) from None
        except ValueError:
            return [text]
    return [text]


def _sids(entries: Mapping[str, Any], path: Path) -> tuple[list[tuple[str, ...]], list[list[int]]]:
    """SID tokens of all items, and their codes if the index contains numbers."""
    named: dict[str, tuple[str, ...]] = {}
    coded: dict[str, list[int]] = {}
    faults = _Faults(path)
    for item, entry in entries.items():
        if isinstance(entry, list) and entry and all(isinstance(token, str) for token in entry):
            named[item] = tuple(entry)
        elif codes := _codes(entry):
            coded[item] = codes
        else:
            faults.add(
                ": expected a list of SID tokens, or a list of whole numbers of at least 0",
                item,
                entry,
            )
    faults.refuse(
        'Write all SIDs in the same format: as tokens, ["<a_3>", "<b_14>"], or as numbers, [3, 14].'
    )
    if named and coded:
        item, other = next(iter(coded)), next(iter(named))
        numbers = f"the SID of item {item} is written as numbers ({coded[item]!s:.60})"
        message = f"{path}: {numbers}, that of item {other} as tokens"
        raise UserError(message, "Write all SIDs in the same format.")
    if coded:
        return [tuple(map(sid_token, range(len(codes)), codes)) for codes in coded.values()], list(
            coded.values()
        )
    return list(named.values()), []


def _codes(entry: Any) -> list[int]:
    """The codes of a SID written as non-negative whole numbers; empty otherwise."""
    if not isinstance(entry, list) or not all(
        type(code) in (int, float) and as_id(code) for code in entry
    ):
        return []
    return [int(code) for code in entry] if min(entry, default=0) >= 0 else []


def sid_token(level: int, code: int) -> str:
    """The token of a code: levels are named a to z, then aa, ab, …, like spreadsheet columns."""
    name = ""
    while level >= 0:
        level, letter = divmod(level, len(ascii_lowercase))
        name, level = ascii_lowercase[letter] + name, level - 1
    return f"<{name}_{code}>"


def prefix_numbers(sids: Sequence[tuple[str, ...]], depth: int | None = None) -> NDArray[np.int32]:
    """The number of each item's first token, first two tokens and so on, `(items, depth)`, from 0
    at each depth; of a SID that is shorter, the whole.

    Args:
        depth: by default that of the deepest SID.
    """
    found = np.zeros((len(sids), max(map(len, sids)) if depth is None else depth), np.int32)
    prefix = np.zeros(len(sids), np.int64)
    for level in range(found.shape[1]):
        codes: dict[str, int] = {}
        following = np.fromiter(
            (
                codes.setdefault(sid[level], len(codes) + 1) if level < len(sid) else 0
                for sid in sids
            ),
            np.int64,
            len(sids),
        )
        prefix = np.unique(prefix * (len(codes) + 1) + following, return_inverse=True)[1]
        found[:, level] = prefix
    return found
