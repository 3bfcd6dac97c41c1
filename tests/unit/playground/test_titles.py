"""Searching titles, against a search that looks at every title and word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidtune.data.catalogue import Catalogue
from sidtune.playground.titles import Titles, plain

TITLES = [
    "Blue Mug, 12 oz",
    "Red Tent",
    "Café Crème",
    "蓝色帐篷",
    "Mugwort tea",
    "The blue-green smug mug",
    "Straße & STRASSE",
]
USERS = [3, 9, 1, 4, 7, 5, 2]
IDS = ["10", "11", "12", "13", "14", "15", "mug"]


def shop(ids: list[str], titles: list[str], users: list[int]) -> tuple[Catalogue, Any]:
    return Catalogue(ids, titles, titles, []), np.array(users)


FOUND = Titles([shop(IDS, TITLES, USERS)])


def ids(text: str, limit: int = 20) -> list[str]:
    return [item.item_id for item in FOUND.find(text, limit)[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe creme", ["12"]),
        ("CAFÉ", ["12"]),
        ("帐篷", ["13"]),
        ("strasse", ["mug"]),
        ("11", ["11"]),
        (" 13 ", ["13"]),
        ("blue mug", ["15", "10"]),
        ("nothing", []),
        ("red mug", []),
        # By popularity without any word.
        ("", ["11", "14", "15", "13", "10", "mug", "12"]),
    ],
)
def test_what_is_found(text: str, expected: list[str]) -> None:
    assert ids(text) == expected


def test_an_id_goes_first_and_beginnings_before_the_rest() -> None:
    assert ids("mug") == ["mug", "14", "15", "10"]
    assert ids("mu") == ["14", "15", "10"]
    assert ids("ug") == ["14", "15", "10"]
    assert FOUND.find("mug", 2)[1] == 4
    assert ids("mug", 2) == ["mug", "14"]


@given(st.text("bluemgrdt -", max_size=6), st.integers(1, 8))
def test_as_a_search_of_every_title_finds(text: str, limit: int) -> None:
    def rank(place: int) -> tuple[bool, bool, int]:
        title, words = f" {plain(TITLES[place])}", plain(text).split()
        begins = all(f" {word}" in title for word in words)
        return IDS[place] != text.strip(), not begins, -USERS[place]

    words = plain(text).split()
    places = [
        place
        for place, title in enumerate(TITLES)
        if (words or IDS[place] == text.strip() or not text.strip())
        and (all(word in plain(title) for word in words) or IDS[place] == text.strip())
    ]
    if not words and text.strip() not in IDS:
        places = list(range(len(TITLES)))
    expected = [IDS[place] for place in sorted(places, key=rank)]
    found, count = FOUND.find(text, limit)
    assert [item.item_id for item in found] == expected[:limit]
    assert count == len(expected)


def test_items_of_two_models_stand_once() -> None:
    both = Titles([shop(["1"], ["one"], [2]), shop(["1", "2"], ["uno", "one more"], [9, 9])])
    assert [item.item_id for item in both.find("one")[0]] == ["2", "1"]
    assert (both.title("1"), both.title("2"), both.title("3")) == ("one", "one more", None)
