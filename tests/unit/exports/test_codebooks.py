"""SID tokens as codebooks."""

from __future__ import annotations

import pytest

from sidtune.base.errors import UserError
from sidtune.exports.codebooks import codebooks_of

SIDS = [("<a_10>", "<b_1>"), ("<a_2>", "<b_1>"), ("<a_2>", "<b_0>")]
# As a tokenizer numbers them: sorted as text.
IDS = {"<a_10>": 300, "<a_2>": 301, "<b_0>": 302, "<b_1>": 303}


def test_ids_of_a_level_follow_its_codes() -> None:
    books = codebooks_of(SIDS, IDS)
    assert books.tokens == (("<a_2>", "<a_10>"), ("<b_0>", "<b_1>"))
    assert (books.start, books.end, books.sizes) == (300, 303, [2, 2])
    assert books.ids == {"<a_2>": 300, "<a_10>": 301, "<b_0>": 302, "<b_1>": 303}
    assert books.order(IDS).tolist() == [301, 300, 302, 303]
    assert books.codes(SIDS) == [(1, 1), (0, 1), (0, 0)]


@pytest.mark.parametrize(
    ("sids", "ids", "said"),
    [
        ([*SIDS, ("<a_2>",)], IDS, "the SIDs have 1, 2 tokens"),
        ([*SIDS, ("<b_0>", "<b_1>")], IDS, "<b_0> stand at two levels"),
        (SIDS, IDS | {"<b_1>": 305}, "other tokens stand between the 4 SID tokens"),
    ],
)
def test_what_codebooks_cannot_hold_is_refused(
    sids: list[tuple[str, ...]], ids: dict[str, int], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        codebooks_of(sids, ids)
