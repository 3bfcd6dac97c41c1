"""Generates demo data with realistic structure from a seed; it is not tuned to any model.

Items have a category, a type, a brand and a variant, and SIDs mirror that hierarchy. Users favour a
few categories and stay with brands; inside a category they buy along a path (a tent, then a
sleeping bag, then a stove), now and then buy a consumable again, and sometimes anything popular.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# category: (types in the order they are bought, consumables among them, brands, variants)
SHOP: dict[str, tuple[list[str], set[str], list[str], list[str]]] = {
    "camping": (
        ["Dome Tent", "Sleeping Bag", "Foam Mat", "Gas Stove", "Cook Set"],
        set(),
        ["Fernhollow", "Tarn & Scree", "Kestrel Ridge"],
        ["1 Person", "2 Person", "Winter Edition", "Ultralight"],
    ),
    "coffee": (
        ["Burr Grinder", "Pour-Over Dripper", "Paper Filters", "Whole Beans", "Travel Mug"],
        {"Paper Filters", "Whole Beans"},
        ["Morrowcup", "Alder & Ash", "Brindle"],
        ["Small", "Large", "Slate Grey", "Copper"],
    ),
    "cycling": (
        ["Road Helmet", "Front Light", "Floor Pump", "Chain Oil", "Saddle Bag"],
        {"Chain Oil"},
        ["Velorum", "Northspoke", "Pedalwright"],
        ["Black", "Signal Yellow", "Compact", "Pro"],
    ),
    "garden": (
        ["Hand Trowel", "Seed Tray", "Potting Soil", "Watering Can", "Pruning Shears"],
        {"Potting Soil"},
        ["Greenmantle", "Loam Lane", "Hedgerow"],
        ["Small", "Large", "Recycled", "Heritage"],
    ),
    "painting": (
        ["Sketch Pad", "Watercolour Set", "Round Brush", "Masking Tape", "Field Easel"],
        {"Sketch Pad", "Masking Tape"},
        ["Ochre House", "Lumen Arts", "Quillfeather"],
        ["Student", "Studio", "Pocket", "Large"],
    ),
    "audio": (
        ["Bookshelf Speaker", "Stereo Amplifier", "Speaker Cable", "Record Player", "Stylus Brush"],
        set(),
        ["Hollowell", "Sonant", "Tidewire"],
        ["Walnut", "Black", "Mk II", "Compact"],
    ),
    "baking": (
        ["Stand Mixer", "Loaf Tin", "Bread Flour", "Proofing Basket", "Cooling Rack"],
        {"Bread Flour"},
        ["Crumb & Co", "Millrace", "Hearthside"],
        ["Small", "Family Size", "Oval", "Round"],
    ),
    "pets": (
        ["Dog Bed", "Lead and Collar", "Dry Food", "Chew Toy", "Grooming Brush"],
        {"Dry Food", "Chew Toy"},
        ["Waggletail", "Old Bramble", "Pawsmith"],
        ["Puppy", "Small Breed", "Large Breed", "Senior"],
    ),
}
HISTORY = 10
FIRST_SECOND, SECONDS_BETWEEN = 1_700_000_000, 86_400
FOLLOW, REFILL, SWITCH = 0.62, 0.12, 0.2  # the remaining probability: any popular item
BRAND_LOYALTY = 0.75
SHARED_SID = 0.015


@dataclass(frozen=True)
class DemoPaths:
    """The files of the demo data, in MiniOneRec's layout."""

    items: Path
    index: Path
    train: Path
    valid: Path
    test: Path


@dataclass(frozen=True)
class EventPaths:
    """The files of the demo's shop: a log of events, and a table of items."""

    events: Path
    items: Path


@dataclass(frozen=True)
class _Item:
    category: int
    type: int
    brand: int
    variant: int
    title: str
    description: str
    sid: tuple[str, str, str]
    popularity: float


def write_demo_data(folder: Path, seed: int = 0, users: int = 900) -> DemoPaths:
    """Write a catalogue and leave-one-out rows: each user's last item is the test target.

    The item before it is the validation target.

    Args:
        folder: created if it does not exist.
        seed: the same seed writes identical files.
        users: number of users; each has 5 to 14 interactions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = DemoPaths(
        folder / "demo.item.json",
        folder / "demo.index.json",
        *(folder / f"{split}.csv" for split in ("train", "valid", "test")),
    )
    random = np.random.default_rng(seed)
    items = _catalogue(random)
    _write_json(
        paths.items,
        {str(i): {"title": t.title, "description": t.description} for i, t in enumerate(items)},
    )
    _write_json(paths.index, {str(i): list(item.sid) for i, item in enumerate(items)})
    sequences = [_sequence(items, random) for _ in range(users)]
    rows = [
        [(user, s[:cut], s[cut]) for cut in range(1, len(s) - 2)]
        for user, s in enumerate(sequences)
    ]
    _write_rows(paths.train, [row for group in rows for row in group], items)
    _write_rows(paths.valid, [(user, s[:-2], s[-2]) for user, s in enumerate(sequences)], items)
    _write_rows(paths.test, [(user, s[:-1], s[-1]) for user, s in enumerate(sequences)], items)
    return paths


def write_demo_events(folder: Path, seed: int = 0, users: int = 900) -> EventPaths:
    """Write the same shop as raw tables: `events.csv` (customer, sku, ts) and `items.csv` (sku,
    name, brand, category, description).

    Args:
        folder, seed, users: as in `write_demo_data`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = EventPaths(folder / "events.csv", folder / "items.csv")
    random = np.random.default_rng(seed)
    items = _catalogue(random)
    categories, brands = list(SHOP), [brands for _, _, brands, _ in SHOP.values()]
    _write_table(
        paths.items,
        ["sku", "name", "brand", "category", "description"],
        [
            [i, t.title, brands[t.category][t.brand], categories[t.category], t.description]
            for i, t in enumerate(items)
        ],
    )
    visits = [
        (f"U{user}", item, FIRST_SECOND + user * 60 + visit * SECONDS_BETWEEN)
        for user in range(users)
        for visit, item in enumerate(_sequence(items, random))
    ]
    by_time = sorted(visits, key=lambda visit: visit[2])
    _write_table(paths.events, ["customer", "sku", "ts"], [list(visit) for visit in by_time])
    return paths


def _catalogue(random: np.random.Generator) -> list[_Item]:
    items: list[_Item] = []
    for category, (types, _, brands, variants) in enumerate(SHOP.values()):
        for kind, name in enumerate(types):
            for brand, maker in enumerate(brands):
                for variant, detail in enumerate(variants):
                    # Some variants share a SID, as with real quantisers.
                    code = variant - 1 if variant and random.random() < SHARED_SID else variant
                    sid = (
                        f"<a_{category * len(types) + kind}>",
                        f"<b_{category * len(brands) + brand}>",
                        f"<c_{code}>",
                    )
                    title = f"{maker} {name}, {detail}"
                    text = _description(random, maker, name, detail, kind)
                    popularity = 1 / (1 + random.permutation(12)[0]) * 0.7**variant
                    items.append(
                        _Item(category, kind, brand, variant, title, text, sid, popularity)
                    )
    return items


def _description(random: np.random.Generator, maker: str, name: str, detail: str, kind: int) -> str:
    uses = [
        "for the first day out",
        "made to last for years",
        "easy to clean and store",
        "a favourite of beginners",
    ]
    text = f"{name} by {maker} ({detail.lower()}), {uses[int(random.integers(len(uses)))]}."
    draw = random.random()
    # As in real data: some items have no description, some have a list written as text.
    return "" if draw < 0.1 else str([text, maker]) if draw < 0.3 else text


def _sequence(items: list[_Item], random: np.random.Generator) -> list[int]:
    """One user's interactions, oldest first."""
    tastes = random.dirichlet(np.full(len(SHOP), 0.25))
    loyal = random.integers(0, 3, len(SHOP))
    variants = random.dirichlet(np.full(4, 0.6))
    category = int(random.choice(len(SHOP), p=tastes))
    chosen = [_choose(items, category, 0, loyal, variants, random)]
    for _ in range(int(random.integers(4, 14))):
        chosen.append(_next(items, chosen[-1], tastes, loyal, variants, random))
    return chosen


def _next(
    items: list[_Item],
    last: int,
    tastes: np.ndarray,
    loyal: np.ndarray,
    variants: np.ndarray,
    random: np.random.Generator,
) -> int:
    item, draw = items[last], random.random()
    types, consumables = list(SHOP.values())[item.category][:2]
    if draw < REFILL and types[item.type] in consumables:
        return last
    if draw < REFILL + FOLLOW:
        return _choose(items, item.category, (item.type + 1) % len(types), loyal, variants, random)
    if draw < REFILL + FOLLOW + SWITCH:
        category = int(random.choice(len(SHOP), p=tastes))
        return _choose(items, category, 0, loyal, variants, random)
    weights = np.array([entry.popularity for entry in items])
    return int(random.choice(len(items), p=weights / weights.sum()))


def _choose(
    items: list[_Item],
    category: int,
    kind: int,
    loyal: np.ndarray,
    variants: np.ndarray,
    random: np.random.Generator,
) -> int:
    """An item of a type: by brand loyalty, the user's kind of variant, and popularity."""
    candidates = [
        i for i, item in enumerate(items) if item.category == category and item.type == kind
    ]
    stay = random.random() < BRAND_LOYALTY
    weights = np.array(
        [
            items[i].popularity
            * (variants[items[i].variant] + 0.05)
            * (not stay or items[i].brand == loyal[category])
            for i in candidates
        ]
    )
    return int(random.choice(candidates, p=weights / weights.sum()))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def _write_table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _write_rows(path: Path, rows: list[tuple[int, list[int], int]], items: list[_Item]) -> None:
    columns = [
        "user_id",
        "history_item_title",
        "item_title",
        "history_item_id",
        "item_id",
        "history_item_sid",
        "item_sid",
    ]
    table: list[list[object]] = []
    for user, whole, target in rows:
        history = whole[-HISTORY:]
        titles = [items[i].title for i in history]
        sids = ["".join(items[i].sid) for i in history]
        aim = items[target]
        table.append([f"U{user}", titles, aim.title, history, target, sids, "".join(aim.sid)])
    _write_table(path, columns, table)
