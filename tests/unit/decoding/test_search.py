"""Constrained decoding against brute force, a textbook beam search and `generate`."""

from __future__ import annotations

from pathlib import Path as Folder
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.slow_search import Path, Reference, closed, random_sids
from tests.tiny_models import ARCHITECTURES, make_base, make_config, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from sidtune.base.ragged import Ragged
from sidtune.config.search import Normalize
from sidtune.data.catalogue import Catalogue
from sidtune.decoding.answers import make_answers
from sidtune.decoding.decoder import Decoder, SharedPrompts, WholeSequences, make_decoder
from sidtune.decoding.search import Search
from sidtune.decoding.trie import Hint, beginnings, build_trie, distinct_sids
from sidtune.model.checkpoint_files import save_pretrained
from sidtune.model.tuning.frozen import freeze, sid_rows

CLOSING, ROOM = 1, 100_000
DEPTHS = {"equal": (3,), "mixed": (1, 2, 3)}
NORMALIZE: tuple[Normalize, ...] = ("full", "trie")
PROMPTS = [[5, 17, 240], [9, 9, 31, 77, 102, 8, 41], [250], [33, 12, 90, 4, 18]]


def model_of(folder: Folder, architecture: str = "qwen3", tied: bool = True) -> PreTrainedModel:
    """A tiny model whose outputs differ enough to be told apart."""
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        make_base(folder, architecture, tied)
    ).eval()
    return loaded


def search_of(sids: list[Path], beams: int, normalize: Normalize, max_tokens: int = ROOM) -> Search:
    return Search(build_trie(Ragged.from_lists(sids), CLOSING), beams, normalize, max_tokens)


def found(
    search: Search,
    decoder: Decoder,
    prompts: list[list[int]],
    excluded: list[list[int]] | None = None,
) -> list[list[tuple[int, float]]]:
    """Numbers and scores of the SIDs that each prompt is answered with."""
    barred = None if excluded is None else Ragged.from_lists(excluded)
    sids, scores = search.run(decoder, Ragged.from_lists(prompts), barred)
    rows = zip(sids.tolist(), scores.tolist(), strict=True)
    return [[(sid, score) for sid, score in zip(*row, strict=True) if sid >= 0] for row in rows]


def assert_same(mine: list[tuple[int, float]], right: list[tuple[int, float]]) -> None:
    assert [sid for sid, _ in mine] == [sid for sid, _ in right]
    assert [score for _, score in mine] == pytest.approx([score for _, score in right], abs=1e-4)


@pytest.mark.parametrize("depths", DEPTHS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_with_beams_for_every_prefix_it_ranks_as_brute_force_does(
    tmp_path: Folder, architecture: str, tied: bool, depths: str
) -> None:
    model = model_of(tmp_path, architecture, tied)
    sids = random_sids(1, DEPTHS[depths], 30)
    paths = closed(sids, CLOSING)
    assert (paths != sids) == (depths == "mixed"), "one SID begins another in the mixed case alone"
    for normalize in NORMALIZE:
        answers = found(search_of(sids, 64, normalize), make_decoder(model), PROMPTS)
        for prompt, mine in zip(PROMPTS, answers, strict=True):
            assert_same(mine, Reference(model, prompt, paths, normalize).best())


@pytest.mark.parametrize("beams", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("depths", DEPTHS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_with_fewer_beams_it_is_the_textbook_search(
    tmp_path: Folder, tied: bool, depths: str, beams: int
) -> None:
    model = model_of(tmp_path, tied=tied)
    sids = random_sids(2, DEPTHS[depths], 40)
    differs = 0
    for normalize in NORMALIZE:
        answers = found(search_of(sids, beams, normalize), make_decoder(model), PROMPTS)
        for prompt, mine in zip(PROMPTS, answers, strict=True):
            reference = Reference(model, prompt, closed(sids, CLOSING), normalize)
            assert_same(mine, reference.beam_search(beams))
            differs += [sid for sid, _ in mine] != [sid for sid, _ in reference.best()[:beams]]
    if beams == 1:
        assert differs, (
            "a greedy search misses the best somewhere, or the search was not narrowed at all"
        )


def test_candidates_keep_the_scores_that_they_have_among_all_items(tmp_path: Folder) -> None:
    """Also where a SID begins others of which none is a candidate: the model can go on to them."""
    model, sids = model_of(tmp_path), random_sids(2, DEPTHS["mixed"], 40)
    paths, ids = closed(sids, CLOSING), {f"<{token}>": token for sid in sids for token in sid}
    names = [tuple(f"<{token}>" for token in sid) for sid in sids]
    items = [str(item) for item in range(len(sids))]
    bundle: Any = SimpleNamespace(
        catalogue=Catalogue(items, items, items, names), users=np.zeros(len(sids), np.int64)
    )
    distinct = distinct_sids(names, ids)
    prompts: Any = SimpleNamespace(
        token_ids=ids, closing=CLOSING, sids=distinct, begins=beginnings(distinct[0])
    )
    allowed = np.array([len(sid) < 3 or item % 5 == 0 for item, sid in enumerate(sids)])
    answers = make_answers(bundle, prompts, allowed)
    lists = found(Search(answers.trie, 64, "full", ROOM), make_decoder(model), PROMPTS)
    chosen = np.flatnonzero(allowed).tolist()
    left = closed([sids[item] for item in chosen], CLOSING)
    assert left != [paths[item] for item in chosen]
    for prompt, mine in zip(PROMPTS, lists, strict=True):
        shown = [(int(answers.items[sid][0]), score) for sid, score in mine]
        best = Reference(model, prompt, paths, "full").best(lambda item: bool(allowed[item]))
        assert_same(shown, best)


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_a_hint_leaves_the_sids_that_begin_with_it(tmp_path: Folder, tokens: int) -> None:
    model, sids = model_of(tmp_path), random_sids(2, DEPTHS["mixed"], 40)
    paths, decoder = closed(sids, CLOSING), make_decoder(model)
    for target in range(0, len(sids), 5):
        state = decoder.start([np.array(prompt, np.int32) for prompt in PROMPTS])
        hint = Hint(torch.full((len(PROMPTS),), target), tokens)
        answers = search_of(sids, 64, "full").go_on(decoder, state, hint=hint)
        for prompt, numbers, scores in zip(PROMPTS, *answers, strict=True):
            mine = zip(numbers.tolist(), scores.tolist(), strict=True)
            allowed = [
                (sid, score)
                for sid, score in Reference(model, prompt, paths, "full").best()
                if paths[sid][:tokens] == paths[target][:tokens]
            ]
            assert_same([(sid, score) for sid, score in mine if sid >= 0], allowed)


@pytest.mark.parametrize("beams", [3, 6, 20])
@pytest.mark.parametrize("depths", DEPTHS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_it_is_what_generate_does_with_allowed_tokens(
    tmp_path: Folder, normalize: Normalize, tied: bool, depths: str, beams: int
) -> None:
    model = model_of(tmp_path, tied=tied)
    sids = sids_that_end_plainly(DEPTHS[depths])
    paths = closed(sids, CLOSING)
    for prompt, mine in zip(
        PROMPTS, found(search_of(sids, beams, normalize), make_decoder(model), PROMPTS), strict=True
    ):
        assert_same(mine, generated(model, prompt, paths, beams, normalize))


def sids_that_end_plainly(depths: tuple[int, ...]) -> list[Path]:
    """SIDs whose last token tells `generate` to stop: no other SID has it inside; some begin
    others.
    """
    inner = random_sids(3, [depth for depth in (2,) if max(depths) > 2], 9)
    ends = range(330, 336)
    random = np.random.default_rng(4)
    whole = {(*sid, int(random.choice(ends))) for sid in inner * 2}
    if min(depths) < max(depths):
        whole |= {(sid[0], int(random.choice(ends))) for sid in inner} | set(inner[:3])
    return sorted(whole)


def generated(
    model: PreTrainedModel, prompt: list[int], paths: list[Path], beams: int, normalize: Normalize
) -> list[tuple[int, float]]:
    """The paths and scores of `generate`'s beam search, without division by length."""
    allowed: dict[Path, set[int]] = {}
    for path in paths:
        for at in range(len(path)):
            allowed.setdefault(path[:at], set()).add(path[at])
    output: Any = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=max(map(len, paths)),
        eos_token_id=sorted({path[-1] for path in paths}),
        pad_token_id=2,
        do_sample=False,
        length_penalty=0.0,
        renormalize_logits=normalize == "trie",
        prefix_allowed_tokens_fn=lambda _, ids: sorted(
            allowed.get(tuple(ids[len(prompt) :].tolist()), {2})
        ),
        return_dict_in_generate=True,
        output_scores=True,
    )
    number = {path: index for index, path in enumerate(paths)}
    answers = []
    for row, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        path = tuple(token for token in row[len(prompt) :] if token != 2)
        if path in number and score > -1e6:
            answers.append((number[path], score))
    return answers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_company_and_padding_change_nothing_but_rounding(
    tmp_path: Folder, architecture: str
) -> None:
    model = model_of(tmp_path, architecture)
    search = search_of(random_sids(5, (2, 3), 40), 6, "full")
    decoder = make_decoder(model)
    together = found(search, decoder, PROMPTS)
    for prompt, mine in zip(PROMPTS, together, strict=True):
        assert_same(found(search, decoder, [prompt])[0], mine)
        assert_same(found(search, decoder, [prompt, list(range(10, 90))])[0], mine)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sharing_prompts_is_running_whole_sequences(tmp_path: Folder, architecture: str) -> None:
    model = model_of(tmp_path, architecture)
    search = search_of(random_sids(6, (1, 2, 3, 4), 40), 6, "trie")
    shared, whole = SharedPrompts(model), WholeSequences(model)
    assert shared.exact()
    for mine, right in zip(
        found(search, shared, PROMPTS), found(search, whole, PROMPTS), strict=True
    ):
        assert_same(mine, right)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "gemma2"])
def test_coarse_precision_does_not_pass_for_a_mask_ignored(
    tmp_path: Folder, architecture: str, weights: torch.dtype
) -> None:
    model = model_of(tmp_path, architecture).to(weights)  # type: ignore[call-arg,arg-type]
    decoder = make_decoder(model, lambda: torch.autocast("cpu", torch.bfloat16))
    assert isinstance(decoder, SharedPrompts)
    exact = found(search_of(random_sids(1, (2, 3), 30), 64, "full"), decoder, PROMPTS)
    for prompt, mine in zip(PROMPTS, exact, strict=True):
        right = dict(
            Reference(model, prompt, closed(random_sids(1, (2, 3), 30), CLOSING), "full").best()
        )
        assert dict(mine) == pytest.approx(right, abs=0.3)


@pytest.mark.parametrize("window", [4, 6])
@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "qwen3"])
def test_layers_that_look_back_over_a_window_see_no_further(architecture: str, window: int) -> None:
    config = make_config(architecture, tied=True, rows=400)
    config.sliding_window = window
    if architecture == "qwen3":
        config.layer_types = ["sliding_attention", "full_attention"]
    set_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    sids = random_sids(7, (2, 3), 30)
    mine = found(search_of(sids, 64, "full"), SharedPrompts(model), PROMPTS)
    for prompt, answer in zip(PROMPTS, mine, strict=True):
        assert_same(answer, Reference(model, prompt, closed(sids, CLOSING), "full").best())


SMALL = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
# Positions counted off a mask; windows counted in places of the cache; chunks; a recurrent state.
UNMASKABLE: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": 400, "hidden_size": 32, "n_layer": 2, "n_head": 2},
    "gpt_neo": {
        **SMALL,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "llama4_text": {
        **SMALL,
        "intermediate_size": 48,
        "intermediate_size_mlp": 48,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "attention_chunk_size": 4,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "pad_token_id": 0,
    },
    "mamba": {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}


@pytest.mark.parametrize("architecture", UNMASKABLE)
def test_a_model_that_ignores_masks_is_decoded_whole(architecture: str) -> None:
    set_seed(0)
    config = AutoConfig.for_model(architecture, **UNMASKABLE[architecture])
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    decoder = make_decoder(model)
    assert isinstance(decoder, WholeSequences)
    sids = random_sids(7, (2, 3), 30)
    for prompt, mine in zip(
        PROMPTS, found(search_of(sids, 64, "full"), decoder, PROMPTS), strict=True
    ):
        assert_same(mine, Reference(model, prompt, closed(sids, CLOSING), "full").best())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_frozen_model_answers_as_the_plain_one_it_is_saved_as(
    tmp_path: Folder, tied: bool
) -> None:
    model = model_of(tmp_path / "base", tied=tied)
    model.resize_token_embeddings(400)
    sids = random_sids(8, (2, 3), 30)
    freeze(model, torch.arange(300, 312))
    with torch.no_grad():
        for rows in sid_rows(model).values():
            rows.normal_(0, 0.2)
    save_pretrained(model, make_tokenizer(), tmp_path / "plain", None)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    for normalize in NORMALIZE:
        search = search_of(sids, 5, normalize)
        pairs = zip(
            found(search, make_decoder(model), PROMPTS),
            found(search, make_decoder(plain), PROMPTS),
            strict=True,
        )
        for mine, right in pairs:
            assert_same(mine, right)


def test_the_models_own_generation_settings_have_no_say(tmp_path: Folder) -> None:
    model = model_of(tmp_path)
    search = search_of(random_sids(9, (3,), 30), 8, "full")
    before = found(search, make_decoder(model), PROMPTS)
    settings: Any = model.generation_config
    settings.update(
        do_sample=True,
        top_k=1,
        top_p=0.1,
        temperature=5.0,
        repetition_penalty=9.0,
        max_new_tokens=1,
    )
    assert found(search, make_decoder(model), PROMPTS) == before


def test_what_is_excluded_is_never_answered_and_the_rest_keeps_its_scores(tmp_path: Folder) -> None:
    model = model_of(tmp_path)
    sids = random_sids(10, (1, 2, 3), 30)
    excluded = [[0, 3, 5], [], list(range(len(sids))), [7]]
    answers = found(search_of(sids, 64, "full"), make_decoder(model), PROMPTS, excluded)
    for prompt, barred, mine in zip(PROMPTS, excluded, answers, strict=True):
        reference = Reference(model, prompt, closed(sids, CLOSING), "full")
        assert_same(mine, reference.best(lambda number, barred=barred: number not in barred))  # type: ignore[misc]
    assert answers[2] == []


@pytest.mark.parametrize("beams", [2, 5])
def test_exclusions_leave_no_list_short(tmp_path: Folder, beams: int) -> None:
    """The search goes as if excluded SIDs were not in the trie: they take no beam from others."""
    model = model_of(tmp_path)
    sids = random_sids(12, (2, 3), 60)
    search = search_of(sids, beams, "full")
    plain = found(search, make_decoder(model), PROMPTS)
    # What would be answered first, so that every beam leads to something excluded.
    excluded = [sorted({place, *(sid for sid, _ in row)}) for place, row in enumerate(plain)]
    answers = found(search, make_decoder(model), PROMPTS, excluded)
    for prompt, barred, mine in zip(PROMPTS, excluded, answers, strict=True):
        assert len(mine) == beams
        left = [path for number, path in enumerate(closed(sids, CLOSING)) if number not in barred]
        right = Reference(model, prompt, left, "full").beam_search(beams)
        numbers = [number for number in range(len(sids)) if number not in barred]
        assert_same(mine, [(numbers[place], score) for place, score in right])


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_tokens_that_the_model_masks_are_not_answered(normalize: Normalize) -> None:
    """All tokens of the last level behind one prefix are masked, and the first of the
    vocabulary.
    """
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("phi", **SMALL, intermediate_size=48, num_key_value_heads=2)
    ).eval()
    sids: list[Path] = [(300, 310), (300, 311), (301, 312), (301, 310), (302, 313)]
    with torch.no_grad():
        model.lm_head.bias[[0, 310, 311, 5]] = -torch.inf
    for prompt, mine in zip(
        PROMPTS, found(search_of(sids, 8, normalize), make_decoder(model), PROMPTS), strict=True
    ):
        right = Reference(model, prompt, sids, normalize).best(lambda number: number in (2, 4))
        assert_same(mine, right)


@pytest.mark.parametrize("max_tokens", [1, 60, 200])
def test_batches_hold_every_prompt_once_within_the_budget(
    tmp_path: Folder, max_tokens: int
) -> None:
    decoder = make_decoder(model_of(tmp_path))
    search = search_of(random_sids(11, (3,), 30), 5, "full", max_tokens)
    lengths = np.array([3, 40, 7, 7, 12, 1, 40])
    batches = search.batches(decoder, lengths)
    assert sorted(np.concatenate(batches).tolist()) == list(range(7))
    for batch in batches:
        held = len(batch) * decoder.tokens(int(lengths[batch].max()), 5, 3)
        assert held <= max_tokens or len(batch) == 1
    assert len(batches) == {1: 7, 60: 4, 200: 2}[max_tokens]
