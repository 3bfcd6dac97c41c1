"""LoRA over quantised weights, on whatever device the tests run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import make_base
from tests.unit.model.tuning.test_frozen import batch, loss_of
from tests.unit.model.tuning.test_lora import load, move
from transformers import AutoModelForCausalLM, PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.files.weight_files import load_weights
from sidtune.model.checkpoint_files import (
    load_start,
    load_training_state,
    save_pretrained,
    save_training_state,
)
from sidtune.model.load import load_model
from sidtune.model.tuning import quantised, tuning_of
from sidtune.model.tuning.lora import adapted_layers
from sidtune.model.tuning.quantised import Kind, quantised_layers, whole_weight
from sidtune.model.unchanged import Unchanged
from sidtune.tokenizer.vocabulary import Vocabulary

# Kernels for CPUs are wrong for widths that are no multiple of 64 on some.
WIDTH = 128
KINDS = pytest.mark.parametrize("kind", ["nf4", "int8"])


def quantise(
    base: Path, vocabulary: Vocabulary, kind: Kind | None, seed: int = 0, **lora: object
) -> PreTrainedModel:
    pytest.importorskip("bitsandbytes")
    tree = {"base": str(base), "tuning": "lora", "quantize": kind, "lora": {"rank": 4, **lora}}
    model = load_model(ModelConfig.model_validate(tree), vocabulary, seed, dtype=torch.float32)
    return model.eval()


@KINDS
def test_training_over_quantised_weights(tmp_path: Path, kind: Kind) -> None:
    """They stay, the gradients are those of the weights they stand for, and merged equals unmerged
    as far as the kernels are exact.
    """
    base = make_base(tmp_path / "base", dtype=torch.bfloat16, width=WIDTH)
    plain, vocabulary = load(base)
    model = quantise(base, vocabulary, kind, targets=["q_proj", "up_proj"])
    move(model)
    layers = quantised_layers(model)
    assert len(layers) == 14, "those without adapters too"
    # bitsandbytes may pack weights anew for inference.
    assert not any(getattr(layer, "support_avx512bf16_for_cpu", False) for layer in layers.values())
    tolerance = 1e-4 if kind == "nf4" else 0.05
    original = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for name, layer in layers.items():
        right = original.get_parameter(f"{name.removesuffix('.base_layer')}.weight")
        error = (whole_weight(layer) - right).abs().max() / right.abs().max()
        assert 0 < error < (0.2 if kind == "nf4" else 0.01)
    ids = batch(vocabulary)
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert not hasattr(merged.config, "quantization_config")
    expected = merged(ids).logits
    assert (model(ids).logits - expected).abs().max() < tolerance * expected.abs().max()
    before = {name: whole_weight(layer) for name, layer in layers.items()}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    first = loss_of(model, ids)
    for _ in range(3):
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss_of(model, ids) < first - 0.1
    assert all(torch.equal(whole_weight(layer), before[name]) for name, layer in layers.items())
    assert tuning_of(model).parameter_counts(model)[1] == sum(
        weight.numel() for weight in original.parameters()
    ) + WIDTH * (len(model.get_input_embeddings().base.weight) - original.config.vocab_size)
    del plain


@KINDS
@pytest.mark.parametrize("passed", [False, True])
def test_whatever_passes_read_moves_with_the_model(
    tmp_path: Path, kind: Kind, passed: bool
) -> None:
    """Another device's weights are other tensors in the same parameters. bitsandbytes reads int8
    weights under a second name, which a pass moves from the parameter to the layer.
    """
    base = make_base(tmp_path / "base", dtype=torch.bfloat16, width=WIDTH)
    vocabulary = load(base)[1]
    model, ids = quantise(base, vocabulary, kind), batch(vocabulary)
    expected = quantise(base, vocabulary, kind)(ids).logits
    if passed:
        model(ids)
    for layer in quantised_layers(model).values():
        old = layer.weight.data
        layer.weight.data = old.clone()
        old.zero_()
    quantised.to_device(model, torch.device("cpu"))
    assert torch.equal(model(ids).logits, expected)


@KINDS
def test_a_quantised_state_comes_back_and_another_base_is_refused(
    tmp_path: Path, kind: Kind
) -> None:
    base = make_base(tmp_path / "base", tied=False, width=WIDTH)
    _, vocabulary = load(base)
    model = quantise(base, vocabulary, kind)
    move(model)
    (tmp_path / "state").mkdir()
    save_training_state(model, vocabulary.tokenizer, tmp_path / "state", Unchanged())
    again = quantise(base, vocabulary, kind, seed=3)
    load_training_state(again, tmp_path / "state")
    ids = batch(vocabulary)
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "state").config.vocab_size % 64 == 0
    with pytest.raises(UserError, match="a quantised base cannot start from the weights in"):
        load_start(again, tmp_path / "state", torch.from_numpy(vocabulary.sid_ids))
    weights = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        weights.get_parameter("model.layers.0.mlp.up_proj.weight").mul_(2)
    weights.save_pretrained(base)
    other = quantise(base, vocabulary, kind)
    with pytest.raises(UserError, match=r"model.base, or how it is quantised .* has changed"):
        load_training_state(other, tmp_path / "state")


def test_a_base_that_comes_quantised(tmp_path: Path) -> None:
    """It is accepted for LoRA, and for nothing else."""
    pytest.importorskip("bitsandbytes")
    plain = make_base(tmp_path / "plain", dtype=torch.bfloat16, width=WIDTH)
    _, vocabulary = load(plain)
    ready = AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=quantised.settings("nf4", torch.float32), device_map={"": "cpu"}
    )
    ready.save_pretrained(tmp_path / "base")
    vocabulary.tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match="is quantised") as fault:
        load(tmp_path / "base", "full")
    assert "With model.tuning: lora it can be used" in fault.value.hint
    model = quantise(tmp_path / "base", vocabulary, None)
    assert quantised_layers(model)
    assert len(adapted_layers(model)) == len(quantised_layers(model))
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.bfloat16)
    assert {weight.dtype for weight in load_weights(tmp_path / "saved").values()} == {
        torch.bfloat16
    }
    with pytest.raises(UserError, match="is quantised already"):
        quantise(tmp_path / "base", vocabulary, "nf4")


def test_kernels_that_do_not_work_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base(tmp_path / "base", width=WIDTH)
    _, vocabulary = load(base)
    monkeypatch.setattr(quantised.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package bitsandbytes") as fault:
        quantise(base, vocabulary, "nf4")
    assert "sidtune[quantize]" in fault.value.hint
    monkeypatch.undo()
    monkeypatch.setattr(quantised, "_probe", lambda kind, width, device: (0.0, 0.5))
    with pytest.raises(UserError, match=r"does not work on this machine's \w+: .* products by 0.5"):
        quantise(base, vocabulary, "nf4")


def test_kernels_that_are_wrong_for_the_width_of_a_layer_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CPUs with AVX-512, where rows that end inside a block of 64 take another's scale."""
    functional = pytest.importorskip("bitsandbytes").functional
    base = make_base(tmp_path / "base")
    _, vocabulary = load(base)
    right = functional.dequantize_4bit

    def wrong(weight: torch.Tensor, state: Any) -> torch.Tensor:
        whole: torch.Tensor = right(weight, state)
        return whole.flip(0) if state.shape[1] % 64 else whole

    monkeypatch.setattr(functional, "dequantize_4bit", wrong)
    with pytest.raises(UserError, match=r"in layers with (32|48) inputs its weights deviate"):
        quantise(base, vocabulary, "nf4")
