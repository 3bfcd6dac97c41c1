"""The items of the made-up shop: titles, descriptions, and SIDs that mirror category, type, brand and variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import yaml

# Price bands of a category's brands, from the cheapest to the dearest.
BANDS = (0, 1, 1, 2)
BAND_WORDS = ("good-value", "dependable", "finely made")
NO_TEXT, LIST_TEXT = 0.08, 0.4
PACKED = ("Packed without plastic.", "Ships in plain paper.", "Doesn't need batteries.", "Made by people who use it.")
COPIED_SIDS = 0.0075  # of all items; each makes two that collide


@dataclass(frozen=True)
class Kind:
    """A type of item, as the shop's word list has it."""

    category: str
    name: str
    brands: tuple[str, ...]
    use: str
    sizes: tuple[str, ...]
    finishes: tuple[str, ...]
    series: tuple[str, ...]
    refill: bool


@dataclass(frozen=True)
class Item:
    """An item by its place in the hierarchy: numbers of its type, of its brand in the category, of its variant."""

    kind: int
    brand: int
    variant: int


def read_kinds() -> list[Kind]:
    """The types of the shop, category by category, in the order in which they are bought."""
    shop = yaml.safe_load(resources.files("sidtune.data").joinpath("demo_shop.yaml").read_text(encoding="utf-8"))
    return [_kind(name, part["brands"], entry) for name, part in shop.items() for entry in part["types"]]


def _kind(category: str, brands: list[str], entry: dict[str, Any]) -> Kind:
    lists = {name: tuple(entry.get(name, ())) for name in ("sizes", "finishes", "series")}
    return Kind(category, entry["name"], tuple(brands), entry["use"], **lists, refill="refill" in entry)


def make_items(kinds: Sequence[Kind], count: int, random: np.random.Generator) -> list[Item]:
    """Evenly many items of each type, in no particular order."""
    share, left = divmod(count, len(kinds))
    made = [item for n, kind in enumerate(kinds) for item in _items_of(kind, n, share + (n < left), random)]
    return [made[place] for place in random.permutation(count)]


def _items_of(kind: Kind, number: int, count: int, random: np.random.Generator) -> list[Item]:
    if kind.series:
        # Two series a type and four brands a category: neighbouring types share out the brands.
        first = len(kind.series) * (number % 2)
        return [Item(number, first + n % len(kind.series), n // len(kind.series)) for n in range(count)]
    variants = len(kind.sizes) * len(kind.finishes)
    drawn = np.sort(random.choice(len(kind.brands) * variants, count, replace=False))
    return [Item(number, int(place) // variants, int(place) % variants) for place in drawn]


def make_record(kind: Kind, item: Item, random: np.random.Generator) -> dict[str, str]:
    title, detail = _title(kind, item)
    text = f"A {BAND_WORDS[BANDS[item.brand]]} {kind.name.lower()} ({detail.lower()}): {kind.use}."
    draw, packed = random.random(), PACKED[int(random.integers(len(PACKED)))]
    # As in collected data: some have none, some carry a list written as text.
    description = "" if draw < NO_TEXT else str([text, packed]) if draw < NO_TEXT + LIST_TEXT else text
    brand = kind.brands[item.brand]
    return {"title": title, "description": description, "brand": brand, "categories": f"{kind.category},{kind.name}"}


def _title(kind: Kind, item: Item) -> tuple[str, str]:
    """Title and detail; each brand has one of two ways to word them."""
    brand = kind.brands[item.brand]
    if kind.series:
        detail = f"Volume {item.variant + 1}"
        return f"{kind.series[item.brand % len(kind.series)]}, {detail} ({kind.name})", detail
    size, finish = kind.sizes[item.variant // len(kind.finishes)], kind.finishes[item.variant % len(kind.finishes)]
    if item.brand % 2:
        return f"{brand} {kind.name}, {finish} ({size})", f"{size}, {finish}"
    return f"{brand} {size} {kind.name}, {finish}", f"{size}, {finish}"


def make_sids(kinds: Sequence[Kind], items: Sequence[Item], random: np.random.Generator) -> list[list[str]]:
    """Levels: two types of a category; one of the two, and the brand; the variant. A few items copy a neighbour's."""
    brands = len(kinds[0].brands)
    categories = list(dict.fromkeys(kind.category for kind in kinds))
    a, b = random.permutation(len(kinds) // 2), random.permutation(2 * brands * len(categories))
    c = random.permutation(1 + max(item.variant for item in items))
    groups: dict[tuple[int, int], list[int]] = {}
    sids: list[list[str]] = []
    for place, item in enumerate(items):
        groups.setdefault((item.kind, item.brand), []).append(place)
        maker = categories.index(kinds[item.kind].category) * brands + item.brand
        sids.append([f"<a_{a[item.kind // 2]}>", f"<b_{b[2 * maker + item.kind % 2]}>", f"<c_{c[item.variant]}>"])
    pairs = [group[:2] for group in groups.values() if len(group) > 1]
    copies = min(len(pairs), max(1, round(COPIED_SIDS * len(items))))
    for pair in random.choice(len(pairs), copies, replace=False):
        original, copy = pairs[pair]
        sids[copy] = sids[original]
    return sids
