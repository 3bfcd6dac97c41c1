"""From SIDs to items: worked out by hand on six items, two pairs of which share a SID."""

from __future__ import annotations

import numpy as np
import pytest

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.data.catalogue import Catalogue
from sidtune.decoding.answers import Answers, allowed_items
from sidtune.decoding.trie import build_trie, distinct_sids

# SID 0: items 0 and 3, 3 more popular; SID 1: item 1; SID 2: items 2 and 5, equally popular; SID 3:
# item 4.
SIDS = [("a",), ("b",), ("c",), ("a",), ("d",), ("c",)]
IDS = ["p", "q", "r", "s", "t", "u"]
USERS = np.array([2, 9, 4, 7, 0, 4])
CATALOGUE = Catalogue(IDS, IDS, IDS, SIDS)


def answers() -> Answers:
    distinct, numbers = distinct_sids(SIDS, {name: 10 + place for place, name in enumerate("abcd")})
    items = Ragged.from_lists([[3, 0], [1], [2, 5], [4]])
    return Answers(build_trie(distinct, 0), items, numbers)


def test_items_of_one_sid_follow_one_another() -> None:
    items, columns = answers().shown(np.array([[2, 0, 3, 1], [1, -1, -1, -1]]))
    assert [items[0].tolist(), items[1].tolist()] == [
        [2, 5, 3, 0],
        [1],
    ], "no list is longer than the beams"
    assert columns.tolist() == [0, 0, 1, 1, 0]


def test_hidden_items_make_room() -> None:
    items, columns = answers().shown(np.array([[2, 0, 3, 1]]), Ragged.from_lists([[5, 3, 3]]))
    assert items[0].tolist() == [2, 0, 4, 1]
    assert columns.tolist() == [0, 1, 2, 3]


def test_ranks_by_sid_and_by_item() -> None:
    sids = np.array([[2, 0, 3, 1]] * 6 + [[1, -1, -1, -1]])
    ranking = answers().rank(sids, np.array([0, 1, 2, 3, 4, 5, 0]))
    assert ranking.sid_ranks.tolist() == [2, 4, 1, 2, 3, 1, 0]
    # Item 4 and item 1 are the fifth and sixth, past the four places of a list.
    assert ranking.item_ranks.tolist() == [4, 0, 1, 3, 0, 2, 0]
    assert ranking.items[0].tolist() == [2, 5, 3, 0]
    assert ranking.items[6].tolist() == [1, -1, -1, -1]


def test_a_sid_is_exhausted_when_all_its_items_are_in_the_history() -> None:
    exhausted = answers().exhausted(Ragged.from_lists([[0, 0, 1], [3, 0, 2], [5, 5], [4, 2, 5, 4]]))
    assert [exhausted[row].tolist() for row in range(4)] == [[1], [0], [], [2, 3]]


def test_items_that_may_not_be_answered_do_not_count() -> None:
    narrowed = Answers(
        answers().trie, Ragged.from_lists([[3], [1], [2], []]), np.array([-1, 1, 2, 0, -1, -1])
    )
    exhausted = narrowed.exhausted(Ragged.from_lists([[3, 4], [0, 5]]))
    assert [exhausted[row].tolist() for row in range(2)] == [[0], []]
    assert narrowed.rank(np.array([[0, 2]]), np.array([0])).item_ranks.tolist() == [0]
    assert narrowed.rank(np.array([[0, -1]]), np.array([0])).sid_ranks.tolist() == [0]


def test_unknown_candidates_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert allowed_items(["s", "nobody", "p", "s"], CATALOGUE).tolist() == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    assert "1 of 3 ids are not in the catalogue: nobody" in capsys.readouterr().err


@pytest.mark.parametrize("ids", [[], ["nobody", "none"]])
def test_a_list_without_any_item_is_refused(ids: list[str]) -> None:
    with pytest.raises(UserError, match="none of"):
        allowed_items(ids, CATALOGUE)


def test_what_is_no_text_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """As a name comes from the command line, or from JSON."""
    found = allowed_items(["s", "\udcff"], CATALOGUE)
    assert [CATALOGUE.ids[place] for place in np.flatnonzero(found)] == ["s"]
    assert "1 of 2 ids" in capsys.readouterr().err
