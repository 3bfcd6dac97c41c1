"""`format: chat` gives the ids of `apply_chat_template`, to the end of the turn, for every kind of
template.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.tiny_models import KINDS, make_tokenizer
from transformers import AddedToken, PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.data.catalogue import Catalogue
from sidtune.encoding.chat import make_frame
from sidtune.encoding.encoder import Encoder
from sidtune.tasks.base import Items, Part, Texts
from sidtune.templates import load_templates
from sidtune.tokenizer.segments import segment_tokenizers
from sidtune.tokenizer.vocabulary import extend_vocabulary

CATALOGUE = Catalogue(
    ids=["x", "y", "z"],
    titles=["Blue mug", "a tent", "a stove"],
    descriptions=["Blue mug", "A tent for two.", "none"],
    sids=[("<a_1>", "<b_1>"), ("<a_2>", "<b_1>", "<c_1>"), ("<a_1>", "<b_2>")],
)
TURNS = [
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
]
LOOP = "{% for m in messages %}"
TEMPLATES = {
    "ChatML": (
        f"{LOOP}{{{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'"
        " }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n'"
        " }}{% endif %}"
    ),
    "a system prompt of its own": (
        f"{{{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}}}{LOOP}{{{{"
        " '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor"
        " %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "Gemma": (
        f"{{{{ bos_token }}}}{LOOP}{{% set role = 'model' if m['role'] == 'assistant' else"
        " m['role'] %}{{ '<start_of_turn>' + role + '\\n' + m['content'] | trim +"
        " '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{"
        " '<start_of_turn>model\\n' }}{% endif %}"
    ),
    "Phi-3": (
        f"{LOOP}{{{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}}}{{% endfor %}}{{%"
        " if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token"
        " }}{% endif %}"
    ),
    "Llama-2": (
        f"{LOOP}{{% if m['role'] == 'user' %}}{{{{ bos_token + '[INST] ' + m['content'].strip() + '"
        " [/INST]' }}{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif"
        " %}{% endfor %}"
    ),
    "Mistral": (
        f"{{{{ bos_token }}}}{LOOP}{{% if m['role'] == 'user' %}}{{{{ '[INST] ' + m['content'] + '"
        " [/INST]' }}{% else %}{{ m['content'] + eos_token + ' ' }}{% endif %}{%"
        " endfor %}"
    ),
    "blanks and no tokens": (
        f"{LOOP}{{% if m['role'] == 'user' %}}{{{{ 'User:  ' + m['content'] + '\\n\\n' }}}}"
        "{% else %}{{ 'Bot:  ' + m['content'] + ' \\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Bot:' }}{% endif %}"
    ),
    "only line breaks are trimmed": (
        f"{LOOP}{{{{ '<|im_start|>' + m['role'] + '\\n' + m['content'].strip('\\n') + '<|im_end|>'"
        " }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n'"
        " }}{% endif %}"
    ),
    "nothing but the messages": f"{LOOP}{{{{ m['content'] }}}}{{% endfor %}}",
}
WORDINGS = {
    "ours": None,
    "blanks at every edge": (
        'sid_next: {prompt: [" \\n ", "Bought:\\n", "{history_sids}", " \\n", "\\n \\t"],'
        ' separator: ", ", response: [" \\n", "{target_sid}", " \\n"]}'
    ),
    "SIDs at every edge": (
        'sid_next: {prompt: ["{history_sids}", "\\n"], response: ["{target_sid}"]}'
    ),
    "one segment": (
        'sid_next: {prompt: ["So: {history_sids}\\n next?\\n"], separator: "; ", '
        'response: ["It is {target_sid}."]}'
    ),
}


def tokenizer_of(kind: str, template: str, rstrip: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer(kind)
    # As in Phi-3, whose turns take the line break behind them along.
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False, rstrip=rstrip) for token in TURNS]
    )
    tokenizer.chat_template = TEMPLATES[template]
    return extend_vocabulary(tokenizer, CATALOGUE.sid_tokens).tokenizer


def encoder(tokenizer: PreTrainedTokenizerFast, wording: str | None, folder: Path) -> Encoder:
    file = None
    if wording:
        file = folder / "mine.yaml"
        file.write_text(wording)
    segments = segment_tokenizers(tokenizer, CATALOGUE.sid_tokens)
    return Encoder(
        segments,
        make_frame(tokenizer, segments, "chat"),
        CATALOGUE,
        load_templates(file),
        512,
        128,
        0,
    )


def examples(form: str = "sid_next") -> Part:
    columns = {
        "history_sids": Items(Ragged.from_lists([[0, 1, 2], [1]]), "sid", many=True),
        "target_sid": Items(Ragged.column(np.array([1, 2], np.int32)), "sid"),
    }
    return Part(form, columns, np.arange(2))


def by_template(tokenizer: Any, prompt: str, response: str) -> list[int]:
    """What Transformers gives for the conversation, up to the end of the turn; EOS where the
    template has none.
    """
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    ends = {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(TURNS)}
    sids = set(tokenizer.convert_tokens_to_ids(CATALOGUE.sid_tokens))
    last = max(place for place, token in enumerate(ids) if token in sids)
    end = next((place for place in range(last + 1, len(ids)) if ids[place] in ends), None)
    return [*ids, tokenizer.eos_token_id] if end is None else ids[: end + 1]


def asked(tokenizer: Any, prompt: str) -> list[int]:
    """What Transformers asks a model with."""
    messages = [{"role": "user", "content": prompt}]
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    return ids


@pytest.mark.parametrize("rstrip", [False, True])
@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_chat_template(
    tmp_path: Path, kind: str, template: str, wording: str, rstrip: bool
) -> None:
    tokenizer = tokenizer_of(kind, template, rstrip)
    made = encoder(tokenizer, WORDINGS[wording], tmp_path)
    encoded = made.encode(examples())
    for row in range(2):
        prompt, response = made.texts(examples(), row)
        ids = encoded.input_ids[row].tolist()
        expected, question = by_template(tokenizer, prompt, response), asked(tokenizer, prompt)
        spanned = expected[: len(question)] != question
        if spanned and wording in ("blanks at every edge", "one segment"):
            pytest.skip("a token spans prompt and response")
        assert tokenizer.convert_ids_to_tokens(ids) == tokenizer.convert_ids_to_tokens(expected)
        start, end = encoded.label_spans[row].tolist()
        assert end == len(ids)
        assert spanned or ids[:start] == question, (
            "labels are what a model writes that is asked this way"
        )
        pieces = made.explain(examples(), row)
        assert [token for piece in pieces for token in piece.ids] == ids
        assert sum(len(piece.ids) for piece in pieces if piece.label) == end - start


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["byte_bos", "first"])
def test_text_out_of_the_data_is_trimmed_where_the_template_trims(
    tmp_path: Path, kind: str, template: str
) -> None:
    """Texts are tokenised one by one, so the words must agree, and where they are split
    need not.
    """
    tokenizer = tokenizer_of(kind, template)
    given = {"prompt": Texts(pa.array(["\n what? \n"])), "response": Texts(pa.array([" a mug \n"]))}
    part = Part("instruction", given, np.arange(1))
    made = encoder(tokenizer, None, tmp_path)
    prompt, response = made.texts(part, 0)
    assert (prompt, response) == ("\n what? \n", " a mug \n")
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    decoded = tokenizer.decode(made.encode(part).input_ids[0].tolist())
    assert decoded.removesuffix("</s>").strip(" \n") in str(text).strip(" \n")
    assert made.reversible(part, 0, tokenizer)


def test_an_answer_in_front_of_the_question_is_refused() -> None:
    tokenizer = tokenizer_of("byte", "ChatML")
    tokenizer.chat_template = "{% for m in messages | reverse %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match="writes the assistant message before the user message"):
        make_frame(tokenizer, segment_tokenizers(tokenizer, CATALOGUE.sid_tokens), "chat")
