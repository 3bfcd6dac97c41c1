"""The peak memory of one training process, by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.batching.layouts import MicroBatch
from sidtune.inputs import Inputs
from sidtune.model.attention import attend_in_float32
from sidtune.model.dropout import decoder_layers
from sidtune.model.load import load_outline
from sidtune.model.tuning import tuning_of
from sidtune.model.tuning.quantised import Kind
from sidtune.tasks.config import Config
from sidtune.training.memory.trace import trace_pass

# Bytes per trained parameter, all in float32: its gradient, and AdamW's two moments.
GRADIENT, OPTIMIZER = 4, 8
# DDP exchanges gradients through buckets of their size; FSDP2 gathers parameters.
EXCHANGE = 4
# bitsandbytes keeps one float32 scale for each block of nf4, and for each row of int8.
BLOCK, SCALE = 64, 4


class Untraceable(UserError):
    """Raised for a model whose passes cannot be followed without values, such as those of
    experts.
    """


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at its peak; `tokens` is the size of the pass, padding included.

    `exchange` is what communication holds: DDP's buckets, or what FSDP2 gathers for a pass.
    `activations` is all that a pass holds at its peak besides `logits`, so it includes what the
    backward pass computes with.
    """

    weights: int
    gradients: int
    optimizer: int
    exchange: int
    activations: int
    logits: int
    tokens: int

    @property
    def state(self) -> int:
        """What is held between passes."""
        return self.weights + self.gradients + self.optimizer + self.exchange

    @property
    def total(self) -> int:
        """All parts."""
        return self.state + self.activations + self.logits


def estimate(
    config: Config, inputs: Inputs, batch: MicroBatch, bf16: bool, processes: int, device_type: str
) -> Memory:
    """The memory of a process that trains as configured; no weight is loaded.

    Args:
        config: of one stage.
        batch: the largest pass.
        bf16: whether forward passes run under bfloat16 autocast.
        processes: of the run; several exchange gradients.
        device_type: where it trains. On a CPU, attention stays in float32.

    Raises:
        Untraceable: for a model that cannot be followed without values.
    """
    dtype = None if bf16 else torch.float32
    quantize = config.model.quantize or _comes_as(inputs)
    checkpointing = config.training.gradient_checkpointing
    # Where it is planned, the kernels of a quantised base need not work.
    plain = config.model.model_copy(update={"quantize": None})
    given = (plain, inputs.vocabulary, config.seed, inputs.trust_remote_code, dtype)
    try:
        model = load_outline(*given)
        if bf16 and device_type == "cpu":
            attend_in_float32(model)
        if config.training.distributed == "fsdp2":
            return sharded_memory_of(model, batch, bf16, checkpointing, processes)
        return memory_of(model, batch, bf16, checkpointing, quantize, processes)
    except UserError:
        raise
    except Exception:
        # PyTorch and the code of architectures have many exceptions for values that are missing.
        raise Untraceable(
            f"the memory of a forward pass of {inputs.model_config.model_type} models cannot be"
            " estimated, since it depends on values",
            "Try a few steps instead: training.max_steps=2.",
        ) from None


def memory_of(
    model: PreTrainedModel,
    batch: MicroBatch,
    bf16: bool,
    checkpointing: bool = False,
    quantize: Kind | None = None,
    processes: int = 1,
) -> Memory:
    """As `estimate`, of an outlined model, which cannot be used afterwards."""
    trained, _ = tuning_of(model).parameter_counts(model)
    weights = weight_bytes(model, quantize)
    traced = trace_pass(model, batch, bf16, checkpointing)
    return Memory(
        weights=weights,
        gradients=GRADIENT * trained,
        optimizer=OPTIMIZER * trained,
        exchange=EXCHANGE * trained if processes > 1 else 0,
        activations=traced.peak - traced.logits,
        logits=traced.logits,
        tokens=batch.input_ids.size,
    )


def sharded_memory_of(
    model: PreTrainedModel, batch: MicroBatch, bf16: bool, checkpointing: bool, processes: int
) -> Memory:
    """As `memory_of`, of a process that holds one shard of every parameter."""
    trained, _ = tuning_of(model).parameter_counts(model)
    weights, exchange = weight_bytes(model, None), gathered_bytes(model, bf16)
    if bf16:
        # Layers are gathered in this type, so autocast makes no copies of their weights.
        for layer in decoder_layers(model):
            layer.to(torch.bfloat16)
    traced = trace_pass(model, batch, bf16, checkpointing)
    return Memory(
        weights=-(-weights // processes),
        gradients=-(-GRADIENT * trained // processes),
        optimizer=-(-OPTIMIZER * trained // processes),
        exchange=exchange,
        activations=traced.peak - traced.logits,
        logits=traced.logits,
        tokens=batch.input_ids.size,
    )


def gathered_bytes(model: PreTrainedModel, bf16: bool) -> int:
    """Bytes of parameters that are in one piece at a time, and of their gradients before they are
    divided.

    That is all that does not belong to a layer, and two layers: the next is gathered while one is
    computed. What arrives is copied once; so are gradients, in float32, before they leave.
    """
    layers = [list(layer.parameters()) for layer in decoder_layers(model)]
    inside = {id(weight) for layer in layers for weight in layer}
    ends = [weight for weight in model.parameters() if id(weight) not in inside]
    arrives = sum(weight.nbytes for weight in ends)
    leaves = sum(GRADIENT * weight.numel() for weight in ends if weight.requires_grad)
    most = 0
    for layer in layers:
        each = [2 if bf16 else weight.element_size() for weight in layer]
        sizes = [size * weight.numel() for size, weight in zip(each, layer, strict=True)]
        own = [
            size + GRADIENT * weight.numel()
            for size, weight in zip(sizes, layer, strict=True)
            if weight.requires_grad
        ]
        most = max(most, 2 * 2 * sum(sizes) + sum(own))
    # The gradient of the output head lasts until that of the embedding is there, and is copied
    # then.
    return arrives + leaves + max(most, leaves, arrives)


def weight_bytes(model: PreTrainedModel, quantize: Kind | None) -> int:
    """Bytes of all weights and buffers in their own types, the linear layers as quantised."""
    held = [*model.parameters(), *model.buffers()]
    return sum(tensor.nbytes for tensor in held) - _saved(model, quantize)


def _saved(model: PreTrainedModel, quantize: Kind | None) -> int:
    """Bytes that quantising the linear layers saves; the output head is not quantised."""
    if quantize is None:
        return 0
    head = {id(module) for module in model.get_output_embeddings().modules()}
    layers = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name and id(module) not in head
    ]
    return sum(layer.weight.nbytes - _packed(layer.weight, quantize) for layer in layers)


def _packed(weight: torch.Tensor, quantize: Kind) -> int:
    values = weight.numel()
    if quantize == "nf4":
        return values // 2 + SCALE * -(-values // BLOCK)
    return values + SCALE * len(weight)


def _comes_as(inputs: Inputs) -> Kind | None:
    """How bitsandbytes has quantised the base already, if it has."""
    given: Any = getattr(inputs.model_config, "quantization_config", None)
    if given is None or inputs.config.model.from_scratch:
        return None
    read = given if isinstance(given, dict) else given.to_dict()
    return "nf4" if read.get("load_in_4bit") else "int8" if read.get("load_in_8bit") else None
