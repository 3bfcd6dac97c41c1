"""Dropout: where it acts, that it acts nowhere else, and which architectures are refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import ARCHITECTURES, make_base, make_config
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.model.attention import runs_trees
from sidtune.model.dropout import RATES, added_to_residual, set_dropout
from sidtune.model.load import load_model
from sidtune.model.tuning.frozen import freeze
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import extend_vocabulary

ROWS, RATE = 64, 0.25
TOKENS = torch.arange(40).view(2, 20)


def make_model(
    architecture: str = "qwen3", frozen: bool = False, **rates: float
) -> PreTrainedModel:
    set_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(make_config(architecture, True, ROWS))
    if frozen:
        freeze(model, torch.arange(30, 40))
    if rates:
        set_dropout(model, ModelConfig(base="b", **rates))  # type: ignore[arg-type]
    return model


def logits(model: PreTrainedModel, **inputs: Any) -> Tensor:
    output: Tensor = model(input_ids=TOKENS, use_cache=False, **inputs).logits
    return output


def outputs(
    model: PreTrainedModel, modules: list[nn.Module], run: Callable[[], Any]
) -> list[Tensor]:
    """What the modules gave in one forward pass, in the order of the modules."""
    seen: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        seen[module] = output if isinstance(output, Tensor) else output[0]

    watches = [module.register_forward_hook(note) for module in modules]
    run()
    for watch in watches:
        watch.remove()
    return [seen[module] for module in modules]


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_acts_in_training_alone(architecture: str, name: str) -> None:
    plain, before = make_model(architecture).eval(), torch.get_rng_state()
    model = make_model(architecture, **{name: RATE}).eval()
    assert torch.equal(torch.get_rng_state(), before), "looking where it acts draws nothing"
    assert torch.equal(logits(model), logits(plain))
    model.train()
    first, second = logits(model), logits(model)
    assert not torch.equal(first, second)
    assert model.config.to_dict() == plain.config.to_dict(), "what is saved knows nothing of it"
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_embedding_loses_its_share_and_the_rest_grows(frozen: bool) -> None:
    plain, model = (
        make_model(frozen=frozen),
        make_model(frozen=frozen, embedding_dropout=RATE).train(),
    )
    dropped, whole = (m.get_input_embeddings()(TOKENS) for m in (model, plain))
    gone = dropped == 0
    assert gone.float().mean() == pytest.approx(RATE, abs=0.05)
    torch.testing.assert_close(dropped[~gone], (whole / (1 - RATE))[~gone])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_block_loses_its_share(architecture: str) -> None:
    model = make_model(architecture, residual_dropout=RATE).train()
    blocks = added_to_residual(model)
    assert len(blocks) == 4, "attention and MLP of two layers"
    for output in outputs(model, blocks, lambda: logits(model)):
        assert output.shape == (2, 20, 32)
        assert (output == 0).float().mean() == pytest.approx(RATE, abs=0.05)


def test_behind_a_block_with_a_norm_the_norm_is_what_is_added() -> None:
    model = make_model("gemma2")
    names = {module: name for name, module in model.named_modules()}
    assert [names[block].rpartition(".")[2] for block in added_to_residual(model)] == [
        "post_attention_layernorm",
        "post_feedforward_layernorm",
    ] * 2


@pytest.mark.parametrize(
    ("architecture", "own"), [("gpt2", "resid_pdrop"), ("gpt_neox", "hidden_dropout")]
)
def test_a_given_rate_replaces_the_bases_own(architecture: str, own: str) -> None:
    header = make_config(architecture, True, ROWS)
    setattr(header, own, 0.5)
    build = partial(AutoModelForCausalLM.from_config, header)
    untouched = build().train()
    set_dropout(untouched, ModelConfig(base="b"))
    assert not torch.equal(logits(untouched), logits(untouched)), "none given: the base's own stays"
    silent = build().train()
    set_dropout(silent, ModelConfig(base="b", residual_dropout=0.0))
    assert torch.equal(logits(silent), logits(silent))
    model = build().train()
    set_dropout(model, ModelConfig(base="b", residual_dropout=RATE))
    for output in outputs(model, added_to_residual(model), lambda: logits(model)):
        assert (output == 0).float().mean() == pytest.approx(RATE, abs=0.05), "not twice"


@pytest.mark.parametrize(
    ("architecture", "rate", "reason"),
    [
        ("bloom", "residual_dropout", "what its layers add to the residual is not recognised"),
        ("opt", "embedding_dropout", "its own dropout cannot be switched off"),
    ],
)
def test_an_architecture_without_a_place_for_it_is_refused(
    architecture: str, rate: str, reason: str
) -> None:
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 48,
        "vocab_size": ROWS,
    }
    if architecture == "opt":
        shape["word_embed_proj_dim"] = 32
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **shape))
    with pytest.raises(UserError, match=f"{rate}.* {architecture} models: {reason}"):
        set_dropout(model, ModelConfig(base="b", **{rate: RATE}))  # type: ignore[arg-type]


def test_recomputed_activations_drop_the_same() -> None:
    gradients = []
    for recompute in (False, True):
        model = make_model(**dict.fromkeys(RATES, RATE)).train()
        if recompute:
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        set_seed(5)
        logits(model).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for left, right in zip(*gradients, strict=True):
        assert left is not None
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    "options", [{"tuning": "frozen"}, {"tuning": "full"}, {"from_scratch": True}]
)
def test_every_way_to_a_model_has_it_and_trees_still_run(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    base = make_base(tmp_path / "base", dtype=torch.bfloat16)
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), ["<a_0>", "<b_0>"])
    config = ModelConfig(base=str(base), **dict.fromkeys(RATES, RATE), **options)
    model = load_model(config, vocabulary, 0)
    assert runs_trees(model.train(), 100), "the probe looks at the model without it"
    assert model.training
    assert not torch.equal(logits(model), logits(model))
