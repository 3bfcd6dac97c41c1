"""Extending a tokenizer by SID tokens: which ids they get, where they split text, which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import KINDS, make_base, make_tokenizer
from transformers import AddedToken

from sidtune.errors import UserError
from sidtune.model.tokenizer import load_tokenizer
from sidtune.model.vocabulary import extend_vocabulary

SIDS = ["<a_0>", "<a_1>", "<b_0>"]


def test_tokens_are_added_sorted_and_once() -> None:
    tokenizer = make_tokenizer()
    known = len(tokenizer)
    vocabulary = extend_vocabulary(tokenizer, ["<b_0>", "<a_0>", "<b_0>", "<a_1>"])
    assert tokenizer.convert_tokens_to_ids(SIDS) == [known, known + 1, known + 2]
    assert vocabulary.known == known
    assert vocabulary.sid_ids.tolist() == vocabulary.new_ids.tolist() == [known, known + 1, known + 2]
    assert not set(SIDS) & set(map(str, tokenizer.all_special_tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_hard_boundaries(kind: str) -> None:
    tokenizer = make_tokenizer(kind)
    vocabulary = extend_vocabulary(tokenizer, SIDS)
    ids = tokenizer("small<a_0><b_0> mug<a_1>\n", add_special_tokens=False)["input_ids"]
    found = [token for token in tokenizer.convert_ids_to_tokens(ids) if token in SIDS]
    assert found == ["<a_0>", "<b_0>", "<a_1>"]
    assert "<a_0><b_0>" in tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "")
    alone = tokenizer("".join(SIDS), add_special_tokens=False)["input_ids"]
    assert alone == vocabulary.sid_ids.tolist()


def test_no_tokens_change_nothing() -> None:
    tokenizer = make_tokenizer()
    vocabulary = extend_vocabulary(tokenizer, [])
    assert vocabulary.sid_ids.shape == vocabulary.new_ids.shape == (0,)
    assert vocabulary.known == len(tokenizer)


def test_known_tokens_keep_their_ids() -> None:
    tokenizer = make_tokenizer()
    first = extend_vocabulary(tokenizer, ["<b_0>"])
    grown = extend_vocabulary(tokenizer, SIDS)
    assert first.new_ids[0] in grown.sid_ids
    assert first.new_ids[0] not in grown.new_ids
    assert len(grown.new_ids) == 2
    assert grown.sid_ids.tolist() == sorted(grown.sid_ids)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["<a 1>"], r"1 SID tokens are empty or hold white space: '<a 1>'"),
        (["<a>\n"], r"hold white space"),
        ([""], r"are empty"),
        (["<a_1", "<a_12>"], r"are the beginning of another: '<a_1 of <a_12>'"),
        (["</s>"], r"are special tokens of the tokenizer: '</s>'"),
        (["t"], r"are ordinary text to the tokenizer already: 't'"),
    ],
)
def test_tokens_that_cannot_be(tokens: list[str], message: str) -> None:
    tokenizer = make_tokenizer()
    before = tokenizer.get_vocab()
    with pytest.raises(UserError, match=message):
        extend_vocabulary(tokenizer, [*tokens, "<fine>"])
    assert tokenizer.get_vocab() == before, "a refused catalogue leaves the tokenizer alone"


@given(st.lists(st.text("ab<", min_size=1, max_size=4), unique=True, max_size=8))
def test_prefixes_are_found_wherever_they_stand(parts: list[str]) -> None:
    tokens = [f"~{part}" for part in parts]
    begins = any(a != b and b.startswith(a) for a in tokens for b in tokens)
    if begins:
        with pytest.raises(UserError, match="are the beginning of another"):
            extend_vocabulary(make_tokenizer(), tokens)
    else:
        assert len(extend_vocabulary(make_tokenizer(), tokens).new_ids) == len(tokens)


def test_a_special_token_without_a_role_is_special() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("<a_0>", special=True)])
    assert "<a_0>" not in tokenizer.all_special_tokens
    with pytest.raises(UserError, match=r"are special tokens of the tokenizer: '<a_0>'"):
        extend_vocabulary(tokenizer, SIDS)


def test_no_two_tokens_share_an_id(tmp_path: Path) -> None:
    """New ids start at the number of tokens, which an ordinary token holds already where the ids have gaps."""
    base = make_base(tmp_path / "base")
    tree = json.loads((base / "tokenizer.json").read_text())
    ids = tree["model"]["vocab"]
    last = max(ids, key=ids.get)
    ids[last] += 1
    (base / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"1 SID tokens get the ids of other tokens.*'<a_0>'"):
        extend_vocabulary(load_tokenizer(str(base)), SIDS)
