"""LoRA against the plain model, a hand-made LoRA, and what is saved of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import ARCHITECTURES, make_base
from tests.unit.model.tuning.test_frozen import SIDS, batch, loss_of
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM, PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.files.weight_files import load_weights
from sidtune.model.checkpoint_files import (
    ADAPTERS,
    load_plain_state_dict,
    load_start,
    load_training_state,
    plain_state_dict,
    save_pretrained,
    save_training_state,
)
from sidtune.model.load import load_model
from sidtune.model.tuning import TUNINGS, tuning_of
from sidtune.model.tuning.frozen import sid_rows
from sidtune.model.tuning.lora import adapted_layers
from sidtune.model.unchanged import Unchanged
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import Vocabulary, extend_vocabulary

TIES = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
MODELS = pytest.mark.parametrize("architecture", ARCHITECTURES)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True, "alpha": 3},
    "dora": {"dora": True},
    "attention": {"targets": ["q_proj", "layers.1.mlp.up_proj"], "init": "gaussian"},
}


def load(
    base: Path, tuning: str = "lora", seed: int = 0, **lora: Any
) -> tuple[PreTrainedModel, Vocabulary]:
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), SIDS)
    given = {"lora": {"rank": 4, **lora}} if tuning == "lora" else {}
    config = ModelConfig.model_validate({"base": str(base), "tuning": tuning, **given})
    return load_model(config, vocabulary, seed).eval(), vocabulary


@torch.no_grad()
def move(model: PreTrainedModel, by: float = 0.05) -> None:
    """As training would: every trained weight changes."""
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=by)


@MODELS
@TIES
def test_logits_before_the_first_step_and_after_merging(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    """First those of the plain model; trained and saved, those of an ordinary folder."""
    base = make_base(tmp_path / "base", architecture, tied, spare=5)
    plain, vocabulary = load(base, "full")
    model, _ = load(base)
    ids = batch(vocabulary)
    assert tuning_of(model) is TUNINGS["lora"]
    torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.dtype == torch.float32 for weight in trained)
    assert len(trained) == 2 * len(adapted_layers(model)) + (1 if tied else 2)
    assert tuning_of(model).parameter_counts(model)[1] == sum(w.numel() for w in plain.parameters())
    move(model)
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.float32)
    again, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    assert not any(
        torch.equal(again.get_parameter(f"{name}.weight"), plain.get_parameter(f"{name}.weight"))
        for name in adapted_layers(model)
    )


def by_hand(plain: PreTrainedModel, model: PreTrainedModel, ids: Tensor, settings: dict[str, Any]):
    """Loss and gradients of W + s B A in place of W, with the model's own A and B and rows."""
    adapters = {
        name: weight.detach().clone().requires_grad_()
        for name, weight in TUNINGS["lora"].adapters(model).items()
    }
    scale = settings.get("alpha", 8) / (4**0.5 if settings.get("rslora") else 4)
    weights = dict(plain.named_parameters())
    for name in adapted_layers(model):
        a, b = (adapters[f"{name}.lora_{part}.default.weight"] for part in "AB")
        delta = scale * b @ a
        base = weights[f"{name}.weight"].detach()
        if type(plain.get_submodule(name)).__name__ == "Conv1D":
            delta = delta.T
        whole = base + delta
        if settings.get("dora"):
            magnitude = adapters[f"{name}.lora_magnitude_vector.default.weight"]
            whole = magnitude[:, None] * whole / whole.norm(dim=1, keepdim=True).detach()
        weights[f"{name}.weight"] = whole
    logits = functional_call(plain, weights, (ids,), {"use_cache": False}).logits.float()
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
    )
    loss.backward()
    return loss, {name: weight.grad for name, weight in adapters.items()}


@pytest.mark.parametrize(
    ("architecture", "tied", "variant"),
    [
        ("qwen3", True, "plain"),
        ("llama", False, "plain"),
        ("gpt2", True, "plain"),
        ("qwen3", False, "rslora"),
        ("llama", True, "dora"),
        ("qwen3", True, "attention"),
    ],
)
def test_gradients_are_those_of_a_lora_made_by_hand(
    tmp_path: Path, architecture: str, tied: bool, variant: str
) -> None:
    base, settings = make_base(tmp_path / "base", architecture, tied), VARIANTS[variant]
    plain, vocabulary = load(base, "full")
    model, _ = load(base, **settings)
    with torch.no_grad():
        for weight in TUNINGS["lora"].adapters(model).values():
            weight.add_(0.05 * torch.randn_like(weight))
    ids = batch(vocabulary)
    expected, gradients = by_hand(plain, model, ids, settings)
    loss = loss_of(model, ids)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    adapters = TUNINGS["lora"].adapters(model)
    assert adapters.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 1e-3, name
        torch.testing.assert_close(adapters[name].grad, gradient, rtol=1e-3, atol=1e-3)
    rows = plain.get_input_embeddings().weight.grad[torch.from_numpy(vocabulary.sid_ids)]
    torch.testing.assert_close(sid_rows(model)["input"].grad, rows, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
@TIES
def test_training_moves_adapters_and_rows_and_nothing_else(
    tmp_path: Path, tied: bool, variant: str
) -> None:
    base = make_base(tmp_path / "base", "qwen3", tied, dtype=torch.bfloat16, spare=70)
    model, vocabulary = load(base, **VARIANTS[variant])
    tuning = tuning_of(model)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.5)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch(vocabulary))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) != weight.requires_grad, name
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).state_dict()
    kept = tuning.unchanged_names(model)
    merged = plain_state_dict(model)
    for name, weight in tuning.hidden_weights(model).items():
        assert torch.equal(weight, plain[name]), name
        assert merged[name].dtype == torch.float32
    assert kept
    assert all(torch.equal(merged[name], plain[name]) for name in kept)


def test_a_merged_weight_is_rounded_once(tmp_path: Path) -> None:
    """In bfloat16: base and adapter are added in float32."""
    model, vocabulary = load(make_base(tmp_path / "base", dtype=torch.bfloat16), dora=True)
    move(model)
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.bfloat16)
    exact, saved = plain_state_dict(model), load_weights(tmp_path / "saved")
    for name in TUNINGS["lora"].hidden_weights(model):
        assert torch.equal(saved[name], exact[name].bfloat16())


@pytest.mark.parametrize(
    ("architecture", "variant"),
    [("qwen3", "dora"), ("gpt2", "plain"), ("qwen3_moe", "plain"), ("gpt_neox", "plain")],
)
def test_a_training_state_comes_back_bit_by_bit(
    tmp_path: Path, architecture: str, variant: str
) -> None:
    """Also where files name weights otherwise than the model does, and from hard links."""
    base = make_base(tmp_path / "base", architecture, tied=False, dtype=torch.bfloat16)
    model, vocabulary = load(base, **VARIANTS[variant])
    move(model)
    (tmp_path / "state").mkdir()
    save_training_state(model, vocabulary.tokenizer, tmp_path / "state", Unchanged())
    other, _ = load(base, seed=9, **VARIANTS[variant])
    load_training_state(other, tmp_path / "state")
    expected, found = dict(model.named_parameters()), dict(other.named_parameters())
    assert expected.keys() == found.keys()
    # The base's own rows at SID ids are never looked up.
    same = [name for name in expected if expected[name].requires_grad or ".base." not in name]
    assert all(torch.equal(found[name], expected[name]) for name in same)


@pytest.mark.parametrize("tuning", ["lora", "frozen"])
def test_a_checkpoint_of_more_than_one_shard_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    """Transformers starts another file at 50 GB, here at 20 KB."""
    save = PreTrainedModel.save_pretrained

    def small(self: Any, *args: Any, **options: Any) -> None:
        save(self, *args, **{"max_shard_size": "20KB"} | options)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", small)
    model, vocabulary = load(make_base(tmp_path / "base"), tuning)
    move(model)
    (tmp_path / "state").mkdir()
    save_training_state(model, vocabulary.tokenizer, tmp_path / "state", Unchanged())
    other, _ = load(tmp_path / "base", tuning, seed=9)
    load_training_state(other, tmp_path / "state")
    for name, weight in model.named_parameters():
        assert torch.equal(other.get_parameter(name), weight) or not weight.requires_grad


@TIES
def test_full_tuning_starts_from_the_merged_weights_in_float32(tmp_path: Path, tied: bool) -> None:
    base = make_base(tmp_path / "base", tied=tied, dtype=torch.bfloat16)
    model, vocabulary = load(base)
    move(model)
    (tmp_path / "result").mkdir()
    save_training_state(model, vocabulary.tokenizer, tmp_path / "result")
    full, _ = load(base, "full")
    load_start(full, tmp_path / "result", torch.from_numpy(vocabulary.sid_ids))
    exact = plain_state_dict(model)
    for name in TUNINGS["lora"].hidden_weights(model):
        assert torch.equal(full.get_parameter(name), exact[name])
        assert not torch.equal(exact[name], exact[name].bfloat16().float())
    ids = torch.from_numpy(vocabulary.sid_ids)
    assert torch.equal(full.get_input_embeddings().weight[ids], sid_rows(model)["input"])


def test_lora_starts_from_the_weights_of_other_tunings(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    full, vocabulary = load(base, "full", seed=5)
    model, _ = load(base)
    load_plain_state_dict(model, plain_state_dict(full))
    ids = batch(vocabulary)
    torch.testing.assert_close(model(ids).logits, full(ids).logits, rtol=1e-5, atol=1e-5)
    merged = plain_state_dict(model)
    assert all(torch.equal(merged[name], value) for name, value in plain_state_dict(full).items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_is_merged_in_the_precision_that_is_asked_for(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """One after another, so that a large model is never held in float32 as a whole."""
    model, _ = load(make_base(tmp_path / "base", dtype=torch.bfloat16))
    move(model)
    exact = plain_state_dict(model)
    merged = plain_state_dict(model, computed=dtype)
    for name in TUNINGS["lora"].hidden_weights(model):
        assert merged[name].dtype == dtype
        assert torch.equal(merged[name], exact[name].to(dtype))


def test_loading_weights_merges_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process loads the best weights at the end of a run, and checks their shapes."""
    base = make_base(tmp_path / "base")
    full, _ = load(base, "full", seed=5)
    model, _ = load(base)
    weights = plain_state_dict(full)
    monkeypatch.delattr("sidtune.model.tuning.lora.merged_weight")
    load_plain_state_dict(model, weights)
    layer = next(iter(adapted_layers(model).items()))
    assert torch.equal(layer[1].get_base_layer().weight, weights[f"{layer[0]}.weight"])


def test_adapters_of_another_rank_are_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    model, vocabulary = load(base)
    (tmp_path / "state").mkdir()
    save_training_state(model, vocabulary.tokenizer, tmp_path / "state", Unchanged())
    other, _ = load(base, rank=8)
    with pytest.raises(UserError, match=r"do not match the model: .*lora_A.* is \(4, 32\)"):
        load_training_state(other, tmp_path / "state")
    (tmp_path / "state" / ADAPTERS).unlink()
    with pytest.raises(UserError, match="damaged weights"):
        load_training_state(model, tmp_path / "state")


def test_unknown_layers_are_named(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    with pytest.raises(
        UserError, match=r"no linear layer 'q_porj'; did you mean q_proj\?"
    ) as fault:
        load(base, targets=["q_porj"])
    assert "Its linear layers: down_proj, gate_proj" in fault.value.hint
    with pytest.raises(UserError, match="no linear layer 'lm_head'"):
        load(base, targets=["lm_head"])


def test_the_start_depends_on_the_seed_alone(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    torch.manual_seed(7)
    one, _ = load(base)
    drawn = torch.rand(1)
    again, other = load(base)[0], load(base, seed=1)[0]
    first, second, third = (TUNINGS["lora"].adapters(m) for m in (one, again, other))
    a = [name for name in first if "lora_A" in name]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], third[name]) for name in a)
    torch.manual_seed(7)
    load(base, "frozen")
    assert torch.equal(torch.rand(1), drawn), "adapters leave the common generator as it was"
