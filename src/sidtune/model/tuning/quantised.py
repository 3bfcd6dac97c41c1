"""Bases that are quantised while they are loaded, or come quantised: by bitsandbytes, for LoRA."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.model.bf16 import device_type

Kind = Literal["nf4", "int8"]
INSTALL = "Run: pip install 'sidtune[quantize]'"
# bitsandbytes' classes; recognised by name, so that unquantised runs need not import it.
CLASSES = ("Linear4bit", "Linear8bitLt")
# Beside the weight, the state of such a layer has these.
EXTRAS = ("SCB", "weight_format")
# Of the probe: nf4 and the product are exact up to rounding; int8 rounds what enters the layer too.
PROBED, AGREES = 64, {"nf4": 1e-3, "int8": 0.05}
# The most that quantising moves a weight, as a share of the largest: half the widest gap between
# two values of nf4 (.152), half a step of int8 (.004), and rounding.
MOVES = {"nf4": 0.16, "int8": 0.005}


def settings(kind: Kind, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Transformers' settings for loading a base quantised.

    Args:
        dtype: of the products.
    """
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    # Without double quantisation: it saves 0.4 bits a weight.
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def drop_quantisation(model_config: PreTrainedConfig) -> None:
    """Remove the setting with which weights that are not quantised could not be made."""
    for config in (model_config, model_config.get_text_config()):
        if hasattr(config, "quantization_config"):
            del config.quantization_config


def quantised_layers(model: PreTrainedModel) -> dict[str, Any]:
    """The layers with quantised weights, by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__ in CLASSES and type(module).__module__.startswith("bitsandbytes")
    }


def to_device(model: PreTrainedModel, device: torch.device) -> None:
    """Move a model, with the scales of int8 layers and their second names of the weights. These are
    no parameters: they stay where they are if the model alone is moved, and passes read them.
    """
    # Transformers' own refuses some quantised models.
    nn.Module.to(model, device)
    for layer in quantised_layers(model).values():
        holders: tuple[Any, ...] = (layer.weight, getattr(layer, "state", None))
        for holder in holders:
            if getattr(holder, "SCB", None) is not None:
                holder.CB, holder.SCB = layer.weight.data, holder.SCB.to(device)


@torch.no_grad()
def whole_weight(layer: Any) -> Tensor:
    """What a quantised layer multiplies by, `(outputs, inputs)` float32."""
    from bitsandbytes import functional

    weight = layer.weight
    if type(layer).__name__ == CLASSES[0]:
        whole: Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
    else:
        # The first forward pass moves the scales from the weight to the layer.
        scales = weight.SCB if layer.state.SCB is None else layer.state.SCB
        whole = functional.int8_vectorwise_dequant(weight.data, scales)
    return whole.float()


def kernel_fault(kind: Kind, width: int = PROBED) -> UserError | None:
    """The error where bitsandbytes cannot train over quantised weights on this machine's device.

    A layer is quantised. The weight that it stands for is compared with the one it was made of, and
    its product and the gradient of what enters it with those of the weight that it stands for.

    Args:
        width: what enters the layer has so many values. Kernels have been wrong for some widths.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return UserError(f"model.quantize: {kind} needs the package bitsandbytes", INSTALL)
    # Its int8 layers would say at every call that they round what enters them.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    device = device_type()
    try:
        moved, deviation = _probe(kind, width, device)
    except Exception as error:
        # Missing kernels raise exceptions of many types.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    else:
        if moved <= MOVES[kind] and deviation <= AGREES[kind]:
            return None
        reason = (
            f"in layers with {width} inputs its weights deviate by {moved:.2g} of their size, and "
            f"its products by {deviation:.2g}"
        )
    return UserError(
        f"model.quantize: {kind}: bitsandbytes does not work on this machine's {device}: {reason}",
        "Remove model.quantize, or use another machine or version of bitsandbytes.",
    )


def make_trainable(model: PreTrainedModel) -> None:
    """Check the kernels for each width of the quantised layers, and keep these as they are.

    At the first pass in evaluation mode, on CPUs with bfloat16 instructions, bitsandbytes would
    pack 4-bit weights in another order. No gradient passes packed weights, and they cannot be
    merged.

    Raises:
        UserError: where kernels are wrong.
    """
    layers = quantised_layers(model).values()
    for width, four in {
        (layer.in_features, type(layer).__name__ == CLASSES[0]) for layer in layers
    }:
        if fault := kernel_fault("nf4" if four else "int8", width):
            raise fault
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


def _probe(kind: Kind, width: int, device: str) -> tuple[float, float]:
    """How far weights are from what they were, and products and gradients from those of the
    weights; as shares of the largest values.
    """
    import bitsandbytes as bnb

    generator = torch.Generator().manual_seed(0)
    weight, given = (torch.randn(PROBED, width, generator=generator) for _ in range(2))
    if kind == "nf4":
        layer = bnb.nn.Linear4bit(
            width, PROBED, bias=False, compute_dtype=torch.float32, quant_type="nf4"
        )
        layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    else:
        layer = bnb.nn.Linear8bitLt(width, PROBED, bias=False, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer = layer.to(device)
    given = given.to(device).requires_grad_()
    product = layer(given)
    (gradient,) = torch.autograd.grad(product.sum(), given)
    stands_for = whole_weight(layer).to(device)
    right = given.detach() @ stands_for.T
    return _share(stands_for.cpu(), weight), max(
        _share(product.detach().float(), right), _share(gradient, stands_for.sum(0))
    )


def _share(value: Tensor, right: Tensor) -> float:
    return float((value - right).abs().max() / right.abs().max())
