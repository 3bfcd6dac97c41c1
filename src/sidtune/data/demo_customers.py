"""The customers of the made-up shop: whom it draws, and what they buy next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.data.demo_items import BANDS, Item, Kind

SHORTEST, LONGEST = 5, 14
# Shares of purchases; what they leave over goes on from one of the last two items.
ANYTHING, SWITCH, REFILL = 0.07, 0.15, 0.16
FROM_LAST, NEXT_VOLUME, OWNED = 0.75, 0.8, 0.1
STEPS_AHEAD = (0.6, 0.25, 0.15)
LOYAL, SAME_BAND, OTHER_BAND = 1.0, 0.3, 0.08
BAND_SHARES = (0.35, 0.45, 0.2)
ZIPF = 0.9

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shop:
    """What customers see, as arrays.

    Args:
        kind, category, brand: `(items,)` numbers of the item's type, category, and brand within the category.
        refill: `(items,)` whether the item is used up.
        sequel: `(items,)` the next volume, -1 where there is none.
        popularity: `(items,)` summing to 1.
        path: `(types, types)` chances of the next type; rows sum to 1.
        entry: `(types,)` how often a visit to the category begins here.
        demand: `(categories,)` summing to 1.
    """

    kind: Ints
    category: Ints
    brand: Ints
    refill: NDArray[np.bool_]
    sequel: Ints
    popularity: Floats
    path: Floats
    entry: Floats
    demand: Floats


@dataclass(frozen=True)
class Customer:
    """Tastes of one user.

    Args:
        entry: `(types,)` chances of the type that begins something new; sums to 1.
        appeal: `(items,)` popularity times liking of the brand.
    """

    entry: Floats
    appeal: Floats


def make_shop(kinds: Sequence[Kind], items: Sequence[Item], random: np.random.Generator) -> Shop:
    """Arrange the catalogue for customers; popularity of items and demand for categories fall like Zipf's law."""
    names = list(dict.fromkeys(kind.category for kind in kinds))
    category = np.array([names.index(kind.category) for kind in kinds])
    kind = np.array([item.kind for item in items])
    place_of = {item: place for place, item in enumerate(items)}
    sequels = [
        place_of.get(Item(item.kind, item.brand, item.variant + 1), -1) if kinds[item.kind].series else -1
        for item in items
    ]
    # Later volumes are bought by those who come from earlier ones.
    volume = np.array([item.variant if kinds[item.kind].series else 0 for item in items])
    popularity = (1.0 + random.permutation(len(items))) ** -ZIPF * 0.5**volume
    demand = (1.0 + random.permutation(len(names))) ** -ZIPF
    path, entry = _paths(category)
    return Shop(
        kind,
        category[kind],
        np.array([item.brand for item in items]),
        np.array([kinds[item.kind].refill for item in items]),
        np.array(sequels),
        popularity / popularity.sum(),
        path,
        entry,
        demand / demand.sum(),
    )


def _paths(category: Ints) -> tuple[Floats, Floats]:
    """Chances from type to type, forwards along each category and round again; where visits begin."""
    path, entry = np.zeros((len(category), len(category))), np.zeros(len(category))
    for number in range(category.max() + 1):
        members = np.flatnonzero(category == number)
        entry[members] = 0.5 ** np.arange(len(members))
        for place, start in enumerate(members):
            for ahead, chance in enumerate(STEPS_AHEAD, start=1):
                path[start, members[(place + ahead) % len(members)]] += chance
    return path, entry


def make_customer(shop: Shop, random: np.random.Generator) -> Customer:
    """Draw tastes: few categories, a price band, and in each category a brand that mostly lies in it."""
    tastes = random.dirichlet(2 * shop.demand)
    band = int(random.choice(len(BAND_SHARES), p=BAND_SHARES))
    fit = np.where(np.array(BANDS) == band, SAME_BAND, OTHER_BAND)
    loyal = random.choice(len(BANDS), len(tastes), p=fit / fit.sum())
    liking = np.tile(fit, (len(tastes), 1))
    liking[np.arange(len(tastes)), loyal] = LOYAL
    category = np.zeros(len(shop.entry), np.int64)
    category[shop.kind] = shop.category
    entry = shop.entry * tastes[category]
    return Customer(entry / entry.sum(), shop.popularity * liking[shop.category, shop.brand])


def make_walk(shop: Shop, customer: Customer, random: np.random.Generator) -> list[int]:
    """One user's interactions, oldest first."""
    length = min(SHORTEST - 1 + int(random.geometric(0.2)), LONGEST)
    bought: list[int] = []
    for _ in range(length):
        bought.append(int(random.choice(len(shop.kind), p=next_chances(shop, customer, bought))))
    return bought


def next_chances(shop: Shop, customer: Customer, bought: Sequence[int]) -> Floats:
    """Chances of every item to be bought next, `(items,)`, summing to 1."""
    appeal = customer.appeal.copy()
    appeal[[item for item in bought if not shop.refill[item]]] *= OWNED
    within = appeal / np.bincount(shop.kind, appeal)[shop.kind]
    start: Floats = customer.entry[shop.kind] * within
    if not bought:
        return start
    chances = ANYTHING * shop.popularity + SWITCH * start
    due = [item for item in bought[:-1] if shop.refill[item]]
    np.add.at(chances, due, REFILL / max(1, len(due)))
    last, before = bought[-1], bought[-2:][0]
    onwards = FROM_LAST * _onwards(shop, within, last, bought)
    onwards += (1 - FROM_LAST) * _onwards(shop, within, before, bought)
    chances += (1 - chances.sum()) * onwards
    normalised: Floats = chances / chances.sum()
    return normalised


def _onwards(shop: Shop, within: Floats, item: int, bought: Sequence[int]) -> Floats:
    """What goes with an item: its next volume, and the types further along its path."""
    chances: Floats = shop.path[shop.kind[item]][shop.kind] * within
    sequel = shop.sequel[item]
    if sequel >= 0 and sequel not in bought:
        chances *= 1 - NEXT_VOLUME
        chances[sequel] += NEXT_VOLUME
    return chances
