"""Examples → ids: against tokenising plain strings, for every kind of tokenizer."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_models import KINDS, make_tokenizer

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.data.catalogue import Catalogue
from sidtune.encoding.chat import make_frame
from sidtune.encoding.encoder import Encoder
from sidtune.tasks.base import Items, Part, Texts
from sidtune.templates import load_templates, parse_template
from sidtune.tokenizer.segments import segment_tokenizers
from sidtune.tokenizer.vocabulary import extend_vocabulary

CATALOGUE = Catalogue(
    ids=["x", "y", "z"],
    titles=["Blue mug", "a tent", "Größe <a_1> </s> مرحبا"],
    descriptions=["Blue mug", "A tent for two or three or four people.", "none"],
    sids=[("<a_1>", "<b_1>"), ("<a_2>", "<b_1>", "<c_1>"), ("<a_1>", "<b_2>")],
)
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else ' ' }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
kinds = pytest.mark.parametrize("kind", KINDS)


def encoder(
    kind: str = "byte",
    templates: str | None = None,
    tmp: Path | None = None,
    cutoff: int = 512,
    style: str = "plain",
    seed: int = 0,
    description_tokens: int = 128,
    catalogue: Catalogue = CATALOGUE,
) -> Encoder:
    vocabulary = extend_vocabulary(make_tokenizer(kind), CATALOGUE.sid_tokens)
    file = None
    if templates is not None:
        assert tmp is not None
        file = tmp / "templates.yaml"
        file.write_text(templates, encoding="utf-8")
    if style == "chat":
        vocabulary.tokenizer.chat_template = CHAT
    segments = segment_tokenizers(vocabulary.tokenizer, CATALOGUE.sid_tokens)
    frame = make_frame(vocabulary.tokenizer, segments, style)  # type: ignore[arg-type]
    made = Encoder(
        segments, frame, catalogue, load_templates(file), cutoff, description_tokens, seed
    )
    made.tokenizer = vocabulary.tokenizer  # type: ignore[attr-defined]
    return made


PLAIN = replace(CATALOGUE, titles=["Blue mug", "a tent", "or two"])
encoders = cache(lambda kind: encoder(kind, catalogue=PLAIN))


def histories(lists: list[list[int]], targets: list[int], form: str = "sid_next") -> Part:
    history, target = Ragged.from_lists(lists), Ragged.column(np.array(targets, np.int32))
    columns = {
        "history_sids": Items(history, "sid", many=True),
        "history_titles": Items(history, "title", many=True),
        "target_sid": Items(target, "sid"),
        "target_title": Items(target, "title"),
        "target_description": Items(target, "description"),
    }
    return Part(form, columns, np.arange(len(targets)))


def split(made: Encoder, part: Part, row: int = 0) -> tuple[list[int], list[int]]:
    """Prompt ids and label ids of one example."""
    encoded = made.encode(part)
    start, end = encoded.label_spans[row].tolist()
    ids = encoded.input_ids[row].tolist()
    assert end == len(ids)
    return ids[:start], ids[start:]


WHOLE = """
sid_next:
  prompt: ["He said \\"buy\\":\\t{history_sids}\\n\\n\\nit's next\\n"]
  separator: ", "
  response: ["{target_sid}"]
"""


@kinds
def test_a_whole_prompt_gives_the_ids_of_that_string(tmp_path: Path, kind: str) -> None:
    made = encoder(kind, WHOLE, tmp_path)
    prompt, labels = split(made, histories([[0, 1, 2]], [1]))
    text = 'He said "buy":\t<a_1><b_1>, <a_2><b_1><c_1>, <a_1><b_2>\n\n\nit\'s next\n'
    tokenizer = made.tokenizer  # type: ignore[attr-defined]
    assert prompt == tokenizer(text).input_ids
    assert labels == [
        *tokenizer.convert_tokens_to_ids(["<a_2>", "<b_1>", "<c_1>"]),
        tokenizer.eos_token_id,
    ]


@kinds
@pytest.mark.parametrize(
    "form", ["sid_next", "fusion.title", "fusion.description", "title_next", "title_to_sid"]
)
def test_segments_are_tokenised_one_by_one(kind: str, form: str) -> None:
    """The slow reference: one call of the tokenizer for each segment and each item, joined."""
    made = encoder(kind)
    part = histories([[0, 1], [1], [2, 2, 0]], [2, 0, 1], form)
    wording = made.templates[form][0]
    encoded = made.encode(part)
    for row, (history, target) in enumerate([([0, 1], 2), ([1], 0), ([2, 2, 0], 1)]):
        prompt = list(made.segments.prefix_ids)
        for index, segment in enumerate(wording.prompt):
            first = index == 0
            if segment.slot is None:
                prompt += made.segments.template([segment.pieces[0][0]], first)[0]
            for place, item in enumerate(history if segment.slot else []):
                if place and wording.separator:
                    prompt += made.segments.template([wording.separator], False)[0]
                prompt += piece(made, segment.slot, item)
        closing = made.tokenizer.eos_token_id  # type: ignore[attr-defined]
        labels = [*piece(made, wording.response[0].slot, target), closing]
        assert encoded.input_ids[row].tolist() == prompt + labels
        assert encoded.label_spans[row].tolist() == [len(prompt), len(prompt) + len(labels)]


def piece(made: Encoder, slot: str | None, item: int) -> list[int]:
    assert slot is not None
    if slot.endswith(("sid", "sids")):
        return [made.segments.added[token] for token in CATALOGUE.sids[item]]
    texts = CATALOGUE.descriptions if slot.endswith("description") else CATALOGUE.titles
    return made.segments.data([texts[item]], False)[0]


@kinds
def test_bos_stands_once_in_front_where_the_tokenizer_puts_it(kind: str) -> None:
    made = encoder(kind)
    prompt, _ = split(made, histories([[0]], [1]))
    bos = made.tokenizer.bos_token_id  # type: ignore[attr-defined]
    assert prompt.count(bos) == (kind != "byte")
    assert (prompt[0] == bos) == (kind != "byte")


@kinds
def test_tokens_inside_a_title_stay_text(kind: str) -> None:
    made = encoder(kind)
    prompt, labels = split(made, histories([[2]], [2], "title_next"))
    special = {*made.segments.added.values()} - set(made.segments.prefix_ids)
    eos = made.tokenizer.eos_token_id  # type: ignore[attr-defined]
    assert not special & set(prompt)
    assert [token for token in labels if token in special] == [eos], "only the closing one"
    text = made.tokenizer.decode(labels[:-1])  # type: ignore[attr-defined]
    assert text.strip() == "Größe <a_1> </s> مرحبا"


@pytest.mark.parametrize("kind", ["always", "first", "never", "prepend"])
def test_an_inner_segment_gets_no_space_in_front(kind: str) -> None:
    made = encoder(kind)
    ids = made.segments.template(["mug"], first=False)[0]
    tokens = made.tokenizer.convert_ids_to_tokens(ids)  # type: ignore[attr-defined]
    assert not tokens[0].startswith("▁")
    opening = made.tokenizer.convert_ids_to_tokens(made.segments.template(["mug"], first=True)[0])  # type: ignore[attr-defined]
    assert opening[0].startswith("▁") == (kind != "never")


@kinds
def test_data_text_that_opens_the_sequence(tmp_path: Path, kind: str) -> None:
    made = encoder(kind, 'instruction: {prompt: ["{prompt}"], response: ["{response}"]}', tmp_path)
    texts = {"prompt": Texts(pa.array(["a tent"])), "response": Texts(pa.array(["Blue mug"]))}
    prompt, labels = split(made, Part("instruction", texts, np.arange(1)))
    assert prompt == made.tokenizer("a tent").input_ids  # type: ignore[attr-defined]
    assert labels[:-1] == made.segments.template(["Blue mug"], first=False)[0]


def test_an_item_that_opens_the_sequence(tmp_path: Path) -> None:
    text = (
        'title_to_sid: {prompt: ["{history_titles}", "?"], separator: "; ", response:'
        ' ["{target_sid}"]}'
    )
    made = encoder("first", text, tmp_path)
    prompt, _ = split(made, histories([[0, 1]], [0], "title_to_sid"))
    expected = made.segments.data(["Blue mug"], True)[0] + made.segments.template(["; "], False)[0]
    expected += made.segments.data(["a tent"], False)[0] + made.segments.template(["?"], False)[0]
    assert prompt == [*made.segments.prefix_ids, *expected]


def test_a_token_inside_a_whole_prompt_is_refused(tmp_path: Path) -> None:
    text = 'title_to_sid: {prompt: ["Titles: {history_titles}."], response: ["{target_sid}"]}'
    with pytest.raises(UserError, match=r"the title 'Größe <a_1> .*contains a token of the model"):
        encoder("byte", text, tmp_path).encode(histories([[0]], [0], "title_to_sid"))


def test_given_text_inside_a_longer_segment(tmp_path: Path) -> None:
    made = encoder(
        "byte", 'instruction: {prompt: ["Q: {prompt}\\nA:"], response: ["{response}"]}', tmp_path
    )

    def part(prompt: str) -> Part:
        return Part(
            "instruction",
            {"prompt": Texts(pa.array([prompt])), "response": Texts(pa.array(["x"]))},
            np.arange(1),
        )

    assert split(made, part("a tent?"))[0] == made.tokenizer("Q: a tent?\nA:").input_ids  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"prompt 'so </s>' contains a token"):
        made.encode(part("so </s>"))


def instruction(prompt: str, response: str = "x", sids: bool = True) -> Part:
    columns = {
        "prompt": Texts(pa.array([prompt]), sids),
        "response": Texts(pa.array([response]), sids),
    }
    return Part("instruction", columns, np.arange(1))


def test_sids_in_given_text_are_tokens_where_that_is_asked_for() -> None:
    made = encoder("byte")
    tokenizer = made.tokenizer  # type: ignore[attr-defined]
    text = "After <a_1><b_2> and a tent:<a_2>"
    prompt, labels = split(made, instruction(text, "<a_1><b_1> next"))
    assert prompt == tokenizer(text).input_ids
    assert labels[:-1] == tokenizer("<a_1><b_1> next").input_ids
    sids = set(tokenizer.convert_tokens_to_ids(CATALOGUE.sid_tokens))
    assert sids & set(prompt)
    assert not sids & set(split(made, instruction(text, sids=False))[0])


@kinds
@given(
    pieces=st.lists(
        st.sampled_from(["<a_1>", "<c_1>", "</s>", "<s>", "<pad>", " mug", "a", "<a_9>", "\n"]),
        min_size=1,
    )
)
def test_only_sids_of_given_text_become_tokens(kind: str, pieces: list[str]) -> None:
    """Between the SIDs stands what the text alone gives, without a space in front, and no other
    added token.
    """
    made, text = encoders(kind), "".join(pieces)
    (ids,) = made.segments.data_with_sids([text], first=False)
    expected, plain = [], ""
    for piece in [*pieces, None]:
        if piece in ("<a_1>", "<c_1>", None):
            expected += made.segments.data([plain], first=False)[0] + (
                [made.segments.added[piece]] if piece else []
            )
            plain = ""
        else:
            plain += piece
    assert ids == expected
    special = {made.segments.added[token] for token in ("</s>", "<s>", "<pad>")}
    assert not special & set(ids)


def test_sids_of_the_base_that_the_catalogue_lacks(tmp_path: Path) -> None:
    """They stay text as long as SIDs do, and are read as tokens together with them."""
    tokenizer = make_tokenizer("byte")
    tokenizer.add_tokens(["<think>", "<a_7>", "<d_7>"])
    vocabulary = extend_vocabulary(tokenizer, CATALOGUE.sid_tokens)
    segments = segment_tokenizers(vocabulary.tokenizer, CATALOGUE.sid_tokens)
    seven, think = vocabulary.tokenizer.convert_tokens_to_ids(["<a_7>", "<think>"])
    text = "so <a_7><a_1><think>"
    (plain,), (read,) = segments.data([text], False), segments.data_with_sids([text], False)
    assert (seven in plain, seven in read) == (False, True)
    assert (think in plain, think in read) == (
        True,
        True,
    ), "an ordinary token of the base, as before"
    assert segments.sids_in(text) == ["<a_7>", "<a_1>"]


def test_sids_of_given_text_inside_a_longer_segment(tmp_path: Path) -> None:
    made = encoder(
        "byte", 'instruction: {prompt: ["Q: {prompt}\\nA:"], response: ["{response}"]}', tmp_path
    )
    tokenizer = made.tokenizer  # type: ignore[attr-defined]
    assert (
        split(made, instruction("what is <a_1>?"))[0]
        == tokenizer("Q: what is <a_1>?\nA:").input_ids
    )
    for text, sids in (("<a_1> </s>", True), ("<a_1>", False)):
        with pytest.raises(UserError, match="contains a token of the model"):
            made.encode(instruction(text, sids=sids))


def test_no_examples_encode_to_none() -> None:
    encoded = encoder().encode(histories([], []))
    assert (len(encoded.input_ids), len(encoded.label_spans), encoded.dropped) == (0, 0, 0)


def test_chat_wraps_prompt_and_response(tmp_path: Path) -> None:
    made = encoder("byte_bos", style="chat")
    prompt, labels = split(made, histories([[0]], [1]))
    tokenizer = made.tokenizer  # type: ignore[attr-defined]
    assert prompt.count(tokenizer.bos_token_id) == 1
    text = (
        "<s>[user] A user's interactions, oldest first:\n<a_1><b_1>\nThe next item is:\n"
        " [assistant] "
    )
    assert tokenizer.decode(prompt) == text
    assert tokenizer.decode(labels) == "<a_2><b_1><c_1></s>"


def test_chat_without_a_chat_template_is_refused() -> None:
    tokenizer = make_tokenizer()
    with pytest.raises(UserError, match="no chat template"):
        make_frame(tokenizer, segment_tokenizers(tokenizer, []), "chat")


LONG = histories([[0] * 9, [1] * 9, [0, 1] * 4], [0, 1, 2])


@pytest.mark.parametrize("templates", [None, WHOLE])
@given(cutoff=st.integers(10, 90))
def test_histories_are_shortened_by_as_few_items_as_needed(
    templates: str | None, cutoff: int, tmp_path_factory
) -> None:  # type: ignore[no-untyped-def]
    tmp = tmp_path_factory.mktemp("templates")
    made, whole = (encoder("byte", templates, tmp, cutoff=limit) for limit in (cutoff, 10_000))
    encoded = made.encode(LONG)
    expected, truncated = [], 0
    for row, (history, target) in enumerate([([0] * 9, 0), ([1] * 9, 1), ([0, 1] * 4, 2)]):
        fitting = None
        for drop in range(len(history)):
            ids = whole.encode(histories([history[drop:]], [target])).input_ids[0].tolist()
            if len(ids) <= cutoff:
                fitting = ids
                truncated += drop > 0
                break
        if fitting is not None:
            expected.append((row, fitting))
    assert [encoded.input_ids[i].tolist() for i in range(len(encoded.input_ids))] == [
        ids for _, ids in expected
    ]
    assert encoded.rows.tolist() == [row for row, _ in expected]
    assert encoded.truncated == truncated
    assert encoded.dropped == 3 - len(expected)


def written(made: Encoder, part: Part, drop: int) -> list[int]:
    """One example without its `drop` oldest items."""
    columns = {}
    for name, column in part.columns.items():
        assert isinstance(column, Items)
        kept = column.positions[0].tolist()
        if column.many:
            kept = kept[: len(kept) - drop] if part.newest_first else kept[drop:]
        columns[name] = Items(Ragged.from_lists([kept]), column.field, column.many)
    ids: list[int] = made.encode(replace(part, columns=columns)).input_ids[0].tolist()
    return ids


SHAPES = [
    ["a ", "{history_sids}", " or ", "{history_titles}", "?"],
    ["{history_titles}", "{history_sids}", "{history_titles}"],
    ["{history_sids}", "{history_sids}"],
    ["As text: {history_titles} - and ", "{history_sids}"],
    ["{history_sids}", " then {history_sids}, that is {history_titles}."],
    ["{history_titles} by name, {history_sids}"],
]


@kinds
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_lists_lose_the_fewest_items_that_make_them_fit(kind: str, data: st.DataObject) -> None:
    """The slow reference: one item less at a time, each time encoded anew with room for
    all of it.
    """
    prompt, separator = (
        data.draw(st.sampled_from(SHAPES)),
        data.draw(st.sampled_from(["", ", ", " / "])),
    )
    entry = {"prompt": prompt, "separator": separator, "response": ["{target_sid}"]}
    made, whole = copy(encoders(kind)), copy(encoders(kind))
    made.templates = whole.templates = {"sid_next": (parse_template("sid_next", entry, "test"),)}
    made.cutoff_len, whole.cutoff_len = data.draw(st.integers(8, 150)), 100_000
    lists = data.draw(
        st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=3)
    )
    part = replace(histories(lists, [1] * len(lists)), newest_first=data.draw(st.booleans()))
    expected = []
    for row, history in enumerate(lists):
        shorter = (written(whole, part.take(np.array([row])), drop) for drop in range(len(history)))
        fitting = next((ids for ids in shorter if len(ids) <= made.cutoff_len), None)
        expected += [(row, fitting)] if fitting else []
    encoded = made.encode(part)
    found = [ids.tolist() for ids in map(encoded.input_ids.__getitem__, range(len(encoded.rows)))]
    assert list(zip(encoded.rows.tolist(), found, strict=True)) == expected


def test_two_lists_in_one_prompt_are_both_counted(tmp_path: Path) -> None:
    """Each item stands there with two SID tokens and the tokens of its title: fifteen too many are
    fifteen gone.
    """
    templates = (
        'sid_next: {prompt: ["{history_sids}", "{history_titles}"], response: ["{target_sid}"]}'
    )
    whole = encoder("byte", templates, tmp_path, cutoff=100_000)
    part = histories([[0] * 40], [1])
    length = len(whole.encode(part).input_ids[0])
    each = 2 + len(whole.segments.data(["Blue mug"], False)[0])
    for limit, gone in (
        (length - 15 * each, 15),
        (length - 15 * each + 1, 15),
        (length - 14 * each - 1, 15),
    ):
        encoded = encoder("byte", templates, tmp_path, cutoff=limit).encode(part)
        assert len(encoded.input_ids[0]) == length - gone * each


def test_a_description_is_cut_to_its_tokens() -> None:
    made = encoder(description_tokens=4)
    _, labels = split(made, histories([[0]], [1], "fusion.description"))
    text = made.tokenizer.decode(labels[:-1])  # type: ignore[attr-defined]
    assert len(labels) <= 6
    assert "A tent for two or three or four people.".startswith(text)
    assert text


SEVERAL = """
sid_next:
  - {prompt: ["one ", "{history_sids}"], response: ["{target_sid}"]}
  - {prompt: ["two ", "{history_sids}"], response: ["{target_sid}"]}
"""


def test_wordings_are_chosen_by_seed_and_row(tmp_path: Path) -> None:
    part = histories([[0]] * 200, [1] * 200)

    def chosen(seed: int, rows: np.ndarray) -> list[str]:
        made = encoder("byte", SEVERAL, tmp_path, seed=seed)
        encoded = made.encode(part.take(rows))
        return [made.tokenizer.decode(encoded.input_ids[i].tolist())[:3] for i in range(len(rows))]  # type: ignore[attr-defined]

    every = chosen(1, np.arange(200))
    assert 60 < every.count("one") < 140
    assert chosen(1, np.arange(50, 60)) == every[50:60], "whatever other examples there are"
    assert chosen(2, np.arange(200)) != every


def test_preview_pieces_are_the_encoded_ids() -> None:
    made = encoder("byte_bos", cutoff=60)
    part = histories([[0] * 9, [1]], [0, 1])
    encoded = made.encode(part)
    for row in range(2):
        pieces = made.explain(part, row)
        assert [token for piece in pieces for token in piece.ids] == encoded.input_ids[row].tolist()
        start, end = encoded.label_spans[row].tolist()
        assert sum(len(piece.ids) for piece in pieces if piece.label) == end - start


@kinds
@pytest.mark.parametrize("form", ["sid_next", "title_next", "fusion.description"])
def test_ids_decode_to_the_text(kind: str, form: str) -> None:
    made = encoder(kind)
    part = histories([[0, 1], [2]], [1, 2], form)
    assert made.reversible(part, 0, made.tokenizer)  # type: ignore[attr-defined]


def test_an_items_text_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = encoder(), list[str]()
    tokenise = made.segments.data

    def counted(texts: list[str], first: bool) -> list[list[int]]:
        seen.extend(texts)
        return tokenise(texts, first)

    monkeypatch.setattr(type(made.segments), "data", lambda _, *given: counted(*given))
    for form in ("title_to_sid", "title_next", "item_feature.title_to_sid"):
        columns = histories([[0, 1], [2]], [1, 2], form).columns
        items = Ragged.column(np.array([0, 1], np.int32))
        columns |= {"title": Items(items, "title"), "sid": Items(items, "sid")}
        made.encode(Part(form, columns, np.arange(2)))
    assert sorted(seen) == sorted(CATALOGUE.titles)


def test_text_that_is_lost_is_noticed() -> None:
    from tokenizers import normalizers

    tokenizer = make_tokenizer("byte")
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    vocabulary = extend_vocabulary(tokenizer, CATALOGUE.sid_tokens)
    segments = segment_tokenizers(vocabulary.tokenizer, CATALOGUE.sid_tokens)
    made = Encoder(
        segments, make_frame(tokenizer, segments, "plain"), CATALOGUE, load_templates(), 512, 128, 0
    )
    assert not made.reversible(histories([[0]], [0], "title_next"), 0, tokenizer)
