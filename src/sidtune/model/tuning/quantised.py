"""Bases that are quantised while they are loaded, or come quantised: by bitsandbytes, for LoRA."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig, PreTrainedModel

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


def quantised_layers(model: PreTrainedModel) -> dict[str, Any]:
    """The layers with quantised weights, by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__ in CLASSES and type(module).__module__.startswith("bitsandbytes")
    }


def keep_trainable(model: PreTrainedModel) -> None:
    """Let quantised layers stay as they are in passes without gradients.

    On CPUs with AVX512_BF16, bitsandbytes packs weights anew in the first such pass, and products
    with packed weights have no gradient.
    """
    for layer in quantised_layers(model).values():
        layer.support_avx512bf16_for_cpu = False


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


def kernel_fault(kind: Kind) -> UserError | None:
    """The error where bitsandbytes cannot train over quantised weights on this machine's device.

    A layer is quantised, and its product and the gradient of what enters it are compared with those
    of the weight that it stands for.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return UserError(f"model.quantize: {kind} needs the package bitsandbytes", INSTALL)
    # Its int8 layers would say at every call that they round what enters them.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    device = device_type()
    try:
        worst = _deviation(kind, device)
    except Exception as error:
        # Missing kernels raise exceptions of many types.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    else:
        if worst <= AGREES[kind]:
            return None
        reason = f"its products deviate by {worst:.2g} of their size"
    return UserError(
        f"model.quantize: {kind}: bitsandbytes does not work on this machine's {device}: {reason}",
        "Remove model.quantize, or use another machine or version of bitsandbytes.",
    )


def _deviation(kind: Kind, device: str) -> float:
    """The largest deviation of product and gradient, as a share of the largest value."""
    import bitsandbytes as bnb

    generator = torch.Generator().manual_seed(0)
    weight, given = (torch.randn(PROBED, PROBED, generator=generator) for _ in range(2))
    if kind == "nf4":
        layer = bnb.nn.Linear4bit(
            PROBED, PROBED, bias=False, compute_dtype=torch.float32, quant_type="nf4"
        )
        layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    else:
        layer = bnb.nn.Linear8bitLt(PROBED, PROBED, bias=False, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer = layer.to(device)
    given = given.to(device).requires_grad_()
    product = layer(given)
    (gradient,) = torch.autograd.grad(product.sum(), given)
    stands_for = whole_weight(layer).to(device)
    right = given.detach() @ stands_for.T
    deviations = [
        (product.detach().float() - right).abs().max() / right.abs().max(),
        (gradient - stands_for.sum(0)).abs().max() / stands_for.sum(0).abs().max(),
    ]
    return float(max(deviations))
