"""Answers to many histories, by a recommender that finds nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sidtune.base.ragged import Ragged
from sidtune.config.search import RankOptions
from sidtune.data.catalogue import Catalogue
from sidtune.decoding.recommender import Recommender
from sidtune.decoding.stream import answer, render


class Untitled:
    """Knows two items without titles, and a third with one."""

    located = Recommender.located

    def __init__(self) -> None:
        titles = ["", "", "Mug"]
        sids = [("<a_1>",), ("<a_2>",), ("<a_3>",)]
        catalogue = Catalogue(["7", "8", "9"], titles, titles, sids)
        self.bundle = SimpleNamespace(catalogue=catalogue)

    def settled(self, options: RankOptions, said: bool) -> RankOptions:
        return options

    def answer(self, history: Ragged, k: int, options: RankOptions) -> list[list[Any]]:
        return [[] for _ in range(len(history))]


def test_latest_items_without_title_are_told_by_their_ids() -> None:
    asked = [("u", ["8", "7", "9"]), ("v", ["7"])]
    found = list(answer(Untitled(), asked, 1, RankOptions()))  # type: ignore[arg-type]
    assert [one.latest for one in found] == [("8", "7", "Mug"), ("7",)]
    assert [str(*render(one)) for one in found] == ["u · after 8; 7; Mug", "v · after 7"]
