"""Extending a tokenizer by SID tokens: which ids they get, where they split text, which are
refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import KINDS, make_base, make_tokenizer
from tokenizers import processors
from transformers import AddedToken, AutoTokenizer

from sidtune.base.errors import UserError
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.segments import segment_tokenizers
from sidtune.tokenizer.vocabulary import extend_vocabulary

SIDS = ["<a_0>", "<a_1>", "<b_0>"]


def test_tokens_are_added_sorted_and_once() -> None:
    tokenizer = make_tokenizer()
    known = len(tokenizer)
    vocabulary = extend_vocabulary(tokenizer, ["<b_0>", "<a_0>", "<b_0>", "<a_1>"])
    assert tokenizer.convert_tokens_to_ids(SIDS) == [known, known + 1, known + 2]
    assert vocabulary.known == known
    assert (
        vocabulary.sid_ids.tolist() == vocabulary.new_ids.tolist() == [known, known + 1, known + 2]
    )
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
        (["<a 1>"], r"1 SID tokens are empty or contain white space: '<a 1>'"),
        (["<a>\n"], r"contain white space"),
        ([""], r"are empty"),
        (["<a_1", "<a_12>"], r"are a prefix of another SID token: '<a_1 of <a_12>'"),
        (["</s>"], r"are special tokens of the tokenizer: '</s>'"),
        (["t"], r"are already ordinary \(not added\) tokens of the tokenizer: 't'"),
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
        with pytest.raises(UserError, match="are a prefix of another SID token"):
            extend_vocabulary(make_tokenizer(), tokens)
    else:
        assert len(extend_vocabulary(make_tokenizer(), tokens).new_ids) == len(tokens)


def as_added(tokenizer: Any) -> None:
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SIDS])


def as_extra(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"extra_special_tokens": [*SIDS, "<other>"]})


def as_additional(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": SIDS[:2]})


FLAGS = pytest.mark.parametrize("flag", [as_added, as_extra, as_additional])


@FLAGS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [False, True], ids=["at once", "saved before"])
def test_special_tokens_without_a_role_may_be_sid_tokens(
    tmp_path: Path, flag: Callable[[Any], None], kind: str, again: bool
) -> None:
    """They keep their ids, stand among the ordinary added tokens, and decoding leaves them in the
    text.
    """
    tokenizer = make_tokenizer(kind)
    flag(tokenizer)
    if again:
        tokenizer.save_pretrained(tmp_path / "base")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    before, others = tokenizer.get_vocab(), set(tokenizer.all_special_tokens) - set(SIDS)
    vocabulary = extend_vocabulary(tokenizer, SIDS)
    assert vocabulary.sid_ids.tolist() == sorted(vocabulary.tokenizer.convert_tokens_to_ids(SIDS))
    assert before.items() <= vocabulary.tokenizer.get_vocab().items()
    assert len(vocabulary.new_ids) == len(set(SIDS) - set(before))
    vocabulary.tokenizer.save_pretrained(tmp_path / "saved")
    ids = vocabulary.tokenizer("a mug <a_0><b_0></s><a_1>", add_special_tokens=False).input_ids
    assert set(vocabulary.sid_ids) <= set(ids)
    for each in (vocabulary.tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        text = each.decode(ids, skip_special_tokens=True).replace(" ", "")
        assert text == "amug<a_0><b_0><a_1>"
        assert each("a mug <a_0><b_0></s><a_1>", add_special_tokens=False).input_ids == ids
        assert set(each.all_special_tokens) == others


@FLAGS
def test_sid_text_in_a_title_stays_text(flag: Callable[[Any], None]) -> None:
    tokenizer = make_tokenizer()
    flag(tokenizer)
    vocabulary = extend_vocabulary(tokenizer, SIDS)
    segments = segment_tokenizers(vocabulary.tokenizer, SIDS)
    (ids,) = segments.data(["a <a_0> mug"], first=False)
    assert not set(ids) & set(vocabulary.sid_ids.tolist())
    assert vocabulary.tokenizer.decode(ids) == "a <a_0> mug"
    (ids,) = segments.template(["a <a_0> mug"], first=False)
    assert vocabulary.tokenizer.convert_tokens_to_ids("<a_0>") in ids


ROLES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]


@pytest.mark.parametrize("role", ROLES)
def test_tokens_with_a_role_are_no_sid_tokens(role: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({role: "<a_0>"})
    with pytest.raises(
        UserError, match=r"1 SID tokens are special tokens of the tokenizer: '<a_0>'"
    ) as error:
        extend_vocabulary(tokenizer, SIDS)
    assert "Rename" in error.value.hint


def test_tokens_that_the_tokenizer_puts_around_a_text_are_no_sid_tokens() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("<a_0>", special=True)])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <a_0>", special_tokens=[("<a_0>", tokenizer.convert_tokens_to_ids("<a_0>"))]
    )
    with pytest.raises(
        UserError, match=r"1 SID tokens are special tokens of the tokenizer: '<a_0>'"
    ):
        extend_vocabulary(tokenizer, SIDS)


TURN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"


@pytest.mark.parametrize(
    "template",
    [
        TURN + "<a_0>{% endfor %}",
        TURN + "{{ '<a_0>' }}{% endfor %}",
        TURN + "{% endfor %}{% if tools %}{{ '\\n<a_0>' }}{% endif %}",
        TURN + "{% generation %}<a_0>{% endgeneration %}{% endfor %}",
        TURN + "{{ '<' + 'a_0>' }}{% endfor %}",
        TURN + "{% endfor %}{% if add_generation_prompt %}{{ '<' ~ 'a_' ~ '0>' }}{% endif %}",
        {"default": TURN + "{% endfor %}", "tool_use": TURN + "<a_0>{% endfor %}"},
    ],
)
def test_tokens_of_the_chat_template_are_no_sid_tokens(template: Any) -> None:
    tokenizer = make_tokenizer()
    as_added(tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(
        UserError, match=r"1 SID tokens are used in the tokenizer's chat template: '<a_0>'"
    ):
        extend_vocabulary(tokenizer, SIDS)


@pytest.mark.parametrize(
    "template",
    [
        TURN + "{{ messages[0]['content'] }}{% endfor %}",
        "{% broken",
        "{{ 1 / 0 }}",
        "{# <a_0> #}",
        None,
        "",
    ],
)
def test_what_a_template_does_not_write_may_be_a_sid_token(template: str | None) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("[0]", special=True), AddedToken("<a_0>", special=True)])
    tokenizer.chat_template = template
    assert len(extend_vocabulary(tokenizer, ["[0]", "<a_0>"]).new_ids) == 0


def test_rows_tell_trained_tokens_from_new_ones() -> None:
    """The tokenizer knows a_0 and a_1, and the model has a row for a_0 alone."""
    tokenizer = make_tokenizer()
    known = len(tokenizer)
    tokenizer.add_tokens(["<a_0>", "<a_1>"])
    vocabulary = extend_vocabulary(tokenizer, SIDS, rows=known + 1)
    assert vocabulary.trained_ids.tolist() == [known]
    assert vocabulary.rowless_ids.tolist() == [known + 1]
    assert vocabulary.new_ids.tolist() == [known + 1, known + 2]
    assert vocabulary.counts == "2 new, 1 of them only in the tokenizer; 1 with trained rows"
    assert vocabulary.names(vocabulary.new_ids) == "<a_1> <b_0>"


def test_without_rows_every_known_token_counts_as_trained() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<a_0>"])
    vocabulary = extend_vocabulary(tokenizer, SIDS)
    assert vocabulary.counts == "2 new; 1 with trained rows"
    assert not len(vocabulary.rowless_ids)


def test_no_two_tokens_share_an_id(tmp_path: Path) -> None:
    """New ids start at the number of tokens, which an ordinary token holds already where the ids
    have gaps.
    """
    base = make_base(tmp_path / "base")
    tree = json.loads((base / "tokenizer.json").read_text())
    ids = tree["model"]["vocab"]
    last = max(ids, key=ids.get)
    ids[last] += 1
    (base / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"1 SID tokens would get ids of other tokens.*'<a_0>'"):
        extend_vocabulary(load_tokenizer(str(base)), SIDS)
