"""Whether input and output rows are one matrix: what is saved says what is true of its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import change, make_base, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.files.weight_files import load_weights
from sidtune.model.checkpoint_files import (
    load_plain_state_dict,
    load_start,
    load_training_state,
    plain_state_dict,
    save_pretrained,
    save_training_state,
)
from sidtune.model.load import load_model, load_trained
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import Vocabulary, extend_vocabulary

SIDS = [f"<{level}_{n}>" for level in "abc" for n in range(4)]
ARCHITECTURES = ("qwen3", "gpt2", "gemma", "gpt_neox")
TUNINGS = pytest.mark.parametrize("tuning", ["full", "frozen"])


def load(base: Path, tuning: str, **options: Any) -> tuple[PreTrainedModel, Vocabulary]:
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), SIDS)
    return load_model(
        ModelConfig(base=str(base), tuning=tuning, **options), vocabulary, 0
    ).eval(), vocabulary  # type: ignore[arg-type]


def says(folder: Path) -> list[bool]:
    """Every flag in a saved configuration, nested ones included."""
    tree = json.loads((folder / "config.json").read_text())
    trees = [tree, *(value for value in tree.values() if isinstance(value, dict))]
    return [each["tie_word_embeddings"] for each in trees if "tie_word_embeddings" in each]


def shared(model: Any) -> bool:
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("spare", [0, 100], ids=["grown", "roomy"])
@TUNINGS
def test_two_matrices_that_are_called_one(
    tmp_path: Path, architecture: str, spare: int, tuning: str
) -> None:
    base = make_base(tmp_path / "base", architecture, tied=False, spare=spare)
    untied = AutoModelForCausalLM.from_pretrained(base)
    head, rows = (
        m.weight.detach().clone()
        for m in (untied.get_output_embeddings(), untied.get_input_embeddings())
    )
    change(base / "config.json", tie_word_embeddings=True)
    model, vocabulary = load(base, tuning)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter[-1].add_(0.125)
    for number, save in enumerate(
        (
            lambda to: save_pretrained(model, vocabulary.tokenizer, to, torch.float32),
            lambda to: save_training_state(model, vocabulary.tokenizer, to),
        )
    ):
        saved = tmp_path / f"saved-{number}"
        save(saved)
        assert says(saved) == [False]
        again: Any = AutoModelForCausalLM.from_pretrained(saved)
        assert not shared(again)
        known = torch.arange(3, vocabulary.known - 1)
        assert torch.equal(again.get_output_embeddings().weight[known], head[known])
        assert torch.equal(again.get_input_embeddings().weight[known], rows[known])
        ids = torch.from_numpy(vocabulary.sid_ids)[None]
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    other, _ = load(base, tuning)
    load_training_state(other, saved)
    torch.testing.assert_close(other(ids).logits, model(ids).logits, rtol=1e-6, atol=1e-6)


@TUNINGS
def test_one_matrix_that_is_written_twice(tmp_path: Path, tuning: str) -> None:
    """Old files hold a tied matrix under both names: it stays one where the base says so, and is
    two elsewhere.
    """
    base = make_base(tmp_path / "base")
    weights = load_weights(base)
    (base / "model.safetensors").unlink()
    torch.save(
        weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()},
        base / "pytorch_model.bin",
    )
    for tied in (True, False):
        change(base / "config.json", tie_word_embeddings=tied)
        model, vocabulary = load(base, tuning)
        saved = tmp_path / str(tied)
        save_pretrained(model, vocabulary.tokenizer, saved, torch.float32)
        assert says(saved) == [tied]
        assert ("lm_head.weight" in load_weights(saved)) == (not tied)
        assert shared(AutoModelForCausalLM.from_pretrained(saved)) == tied


def test_a_missing_head_may_be_the_input_rows(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    change(base / "config.json", tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"lacks 1 weights, such as lm_head\.weight") as error:
        load(base, "full")
    assert "set tie_word_embeddings: true" in error.value.hint


@pytest.mark.parametrize("tied", [True, False])
def test_from_scratch_has_the_shape_that_the_base_says(tmp_path: Path, tied: bool) -> None:
    base = make_base(tmp_path / "base", tied=not tied)
    change(base / "config.json", tie_word_embeddings=tied)
    model, vocabulary = load(base, "full", from_scratch=True)
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.float32)
    assert says(tmp_path / "saved") == [tied]
    assert shared(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")) == tied


@TUNINGS
@pytest.mark.parametrize("tied", [True, False])
def test_a_text_model_inside_another(tmp_path: Path, tied: bool, tuning: str) -> None:
    """Both configurations say it: that of the whole and that of its text model."""
    tokenizer = make_tokenizer()
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {
        **shape,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": len(tokenizer),
        "eos_token_id": 1,
    }
    vision = {**shape, "image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"}
    config = AutoConfig.for_model(
        "gemma3",
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=1,
        tie_word_embeddings=tied,
    )
    base = tmp_path / "base"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    tree = json.loads((base / "config.json").read_text())
    tree["text_config"]["tie_word_embeddings"] = True
    change(base / "config.json", tie_word_embeddings=True, text_config=tree["text_config"])
    model, vocabulary = load(base, tuning)
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.float32)
    assert set(says(tmp_path / "saved")) == {tied}
    assert shared(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")) == tied


def test_a_folder_that_says_the_wrong_thing_is_asked_as_it_is(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied=False)
    plain = AutoModelForCausalLM.from_pretrained(base)
    change(base / "config.json", tie_word_embeddings=True)
    model = load_trained(base, torch.device("cpu"))
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids).logits, plain(ids).logits)
    assert model.config.tie_word_embeddings is False


@TUNINGS
def test_output_rows_are_not_lost_in_a_tied_model(tmp_path: Path, tuning: str) -> None:
    tied, vocabulary = load(make_base(tmp_path / "tied"), tuning)
    untied, _ = load(make_base(tmp_path / "untied", tied=False), "full")
    with pytest.raises(UserError, match="untied output embeddings"):
        load_plain_state_dict(tied, plain_state_dict(untied))
    save_training_state(untied, vocabulary.tokenizer, tmp_path / "start")
    with pytest.raises(UserError, match="untied output embeddings"):
        load_start(tied, tmp_path / "start", torch.from_numpy(vocabulary.sid_ids))
    weights = plain_state_dict(tied)
    twice = weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    load_plain_state_dict(tied, twice)
