"""Dropout where the configuration asks for it, in any architecture whose parts are recognised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.model.tuning.base import text_decoder

RATES = ("residual_dropout", "embedding_dropout")
# Names of the modules whose outputs a decoder layer adds to the residual, after attention and after
# the MLP. Where a norm follows a block, the norm's output is added, so norms are tried first.
ADDED = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3, OLMo 2
    ("post_self_attn_layernorm", "post_mlp_layernorm"),  # GLM 4
    ("self_attn", "mlp"),  # Llama, Qwen, Mistral and most others
    ("attention", "mlp"),  # GPT-NeoX
    ("attn", "mlp"),  # GPT-2
)
# Attributes in which attention modules keep their dropout rate as a number.
ATTENTION_RATES = ("attention_dropout", "attn_dropout")
PROBED = 16


def set_dropout(model: PreTrainedModel, config: ModelConfig) -> None:
    """Install the configured rates; they apply in training mode only and leave the model's
    configuration unchanged.

    Without configured rates, the base's own dropout is kept; with any, it is switched off first.

    Args:
        model: on the CPU, already frozen if tuning is frozen; or on the meta device, where nothing
            is computed, so that the places are not tested.

    Raises:
        UserError: for an architecture in which the place of a rate is not known.
    """
    residual, embedding = (getattr(config, name) for name in RATES)
    if residual is None and embedding is None:
        return
    _switch_off_own(model)
    if not _is_outline(model) and _varies(model):
        raise _unknown(model, "its own dropout cannot be switched off", ", model.".join(RATES))
    if embedding:
        model.get_input_embeddings().register_forward_hook(_dropping(embedding))
    if residual:
        for part in added_to_residual(model):
            part.register_forward_hook(_dropping(residual))


def added_to_residual(model: PreTrainedModel) -> list[nn.Module]:
    """The modules whose outputs are added to the residual, two for each decoder layer.

    Raises:
        UserError: where they are not recognised.
    """
    layers = decoder_layers(model)
    parts = [getattr(layer, name, None) for layer in layers for name in _names(layer)]
    found = [part for part in parts if isinstance(part, nn.Module)]
    if (
        not layers
        or len(found) < 2 * len(layers)
        or not (_is_outline(model) or _nothing_else_is_added(model, layers, found))
    ):
        raise _unknown(
            model, "what its layers add to the residual is not recognised", "residual_dropout"
        )
    return found


def _is_outline(model: PreTrainedModel) -> bool:
    return model.device.type == "meta"


def _names(layer: nn.Module) -> tuple[str, str]:
    known = (names for names in ADDED if all(hasattr(layer, name) for name in names))
    return next(known, ADDED[0])


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers of a model, in order; empty where they are not recognised."""
    depth = model.config.get_text_config().num_hidden_layers
    lists = (
        module
        for module in text_decoder(model).modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    )
    return list(next(lists, []))


@torch.no_grad()
def _nothing_else_is_added(
    model: PreTrainedModel, layers: list[nn.Module], parts: list[nn.Module]
) -> bool:
    """Whether layers leave hidden states unchanged when their parts output zeros, tested on a few
    tokens.
    """
    same: list[bool] = []

    def compare(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        entered = given[0] if given else named["hidden_states"]
        same.append(torch.equal(entered, output if isinstance(output, Tensor) else output[0]))

    watches = [part.register_forward_hook(_changing(torch.zeros_like)) for part in parts]
    watches += [layer.register_forward_hook(compare, with_kwargs=True) for layer in layers]
    try:
        _logits(model)
    finally:
        for watch in watches:
            watch.remove()
    return len(same) == len(layers) and all(same)


def _dropping(rate: float) -> Callable[..., Any]:
    """A forward hook that applies dropout to a module's output in training mode."""

    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        return _changing(lambda hidden: nn.functional.dropout(hidden, rate, module.training))(
            module, _, output
        )

    return drop


def _changing(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A forward hook that changes a module's output, or the first of several outputs."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    return hook


def _switch_off_own(model: PreTrainedModel) -> None:
    """Set the base's own dropout to zero, in `nn.Dropout` modules and in attributes of attention
    modules.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ATTENTION_RATES:
            if isinstance(getattr(module, name, None), float | int):
                setattr(module, name, 0.0)


@torch.no_grad()
def _varies(model: PreTrainedModel) -> bool:
    """Whether training and evaluation mode give different logits, tested on a few tokens."""
    training = model.training
    expected, seen = _logits(model.eval()), _logits(model.train())
    model.train(training)
    return not torch.equal(seen, expected)


def _logits(model: PreTrainedModel) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        ids = torch.arange(PROBED, device=model.device)[None]
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def _unknown(model: PreTrainedModel, reason: str, keys: str) -> UserError:
    return UserError(
        f"model.{keys} is not supported for {model.config.model_type} models: {reason}",
        f"Remove model.{keys}, or use another base.",
    )
