"""Suggestions: what is near in spelling, and nothing else."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidtune.base.errors import PeerLost, UserError, did_you_mean
from sidtune.runs.output import FinishedError
from sidtune.training.memory.estimate import Untraceable

COLUMNS = ["user_id", "history_titles", "history_sids", "item_id", "history_item_title"]


@pytest.mark.parametrize(
    ("word", "known", "suggested"),
    [
        ("sid_nxt", ["sid_next", "title_next"], "sid_next"),
        ("sidnext", ["sid_next", "title_next"], "sid_next"),
        ("histroy", ["history"], "history"),
        ("lerning_rat", ["learning_rate"], "learning_rate"),
        ("batchsize", ["batch_size"], "batch_size"),
        ("USER_ID", COLUMNS, "user_id"),
        ("history_sid", COLUMNS, "history_sids"),
        ("history_item_id", [*COLUMNS, "history_item_ids"], "history_item_ids"),
        ("history_item_ids", COLUMNS, None),
        ("history", COLUMNS, None),
        ("history_item_ids", ["history_titles"], None),
        ("history_items", ["history_titles", "history_sids"], None),
        ("target_title", ["target_sid"], None),
        ("user", ["user_id"], None),
        ("user_id", ["item_id"], None),
        ("lr", ["learning_rate", "layout"], None),
        ("anything", [], None),
    ],
)
def test_only_what_is_near_in_spelling_is_suggested(
    word: str, known: list[str], suggested: str | None
) -> None:
    assert did_you_mean(word, known) == (f"; did you mean {suggested}?" if suggested else "")


@pytest.mark.parametrize("kind", [UserError, PeerLost, FinishedError, Untraceable])
def test_an_error_reaches_other_processes_as_it_is(kind: type[UserError]) -> None:
    error = kind("what", "what next")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.hint, str(again)) == ("what", "what next", str(error))


@given(st.sampled_from(["learning_rate", "history", "item_feature", "max_steps"]), st.data())
def test_one_slip_is_always_seen_through(word: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(word) - 2))
    slip = data.draw(st.sampled_from(["left out", "put in", "exchanged", "swapped"]))
    middle = {
        "left out": "",
        "put in": f"x{word[place]}",
        "exchanged": "x",
        "swapped": word[place + 1] + word[place],
    }[slip]
    misspelt = word[:place] + middle + word[place + (2 if slip == "swapped" else 1) :]
    known = ["user_id", "history_titles", word, "target_title", "layout"]
    assert did_you_mean(misspelt, known) == f"; did you mean {word}?"
