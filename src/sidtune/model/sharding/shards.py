"""A model whose parameters are divided among processes: each holds a shard of every parameter."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.model.dropout import decoder_layers

# An attribute of sharded models.
GATHERED_NARROW = "_gathered_in_bfloat16"


def is_sharded(model: nn.Module) -> bool:
    """Whether the parameters of a model are divided among processes."""
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """A tensor in one piece; of a divided one, every process must ask at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered_narrow(model: nn.Module) -> bool:
    """Whether layers are gathered in bfloat16, whatever the type of their shards."""
    return bool(getattr(model, GATHERED_NARROW, False))


def computing(model: nn.Module) -> AbstractContextManager[Any]:
    """The context for passes outside of training: bfloat16 autocast for a model whose layers are
    gathered in that type, which hidden states in float32 do not fit.
    """
    if not gathered_narrow(model):
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard(model: PreTrainedModel, device: torch.device, bf16: bool) -> None:
    """Divide the parameters of a model among all processes; their values are still to be set.

    Each decoder layer is gathered when its turn comes, and all other parameters for the length of a
    pass. In between, nothing is held in one piece.

    Args:
        model: on the meta device.
        device: of the shards.
        bf16: whether passes run under bfloat16 autocast. Layers are then gathered in bfloat16,
            which autocast would otherwise convert them to one by one, and their gradients are added
            up in float32.

    Raises:
        UserError: for a model without a list of decoder layers.
    """
    layers = decoder_layers(model)
    if not layers:
        raise UserError(
            f"training.distributed: fsdp2 is not supported for {model.config.model_type} models:"
            " their layers are not recognised",
            "Use training.distributed: ddp.",
        )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # What enters a layer keeps its type, so that hidden states are those of DDP.
    narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    policy = narrow if bf16 else MixedPrecisionPolicy()
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    # By default the last group would stay in one piece after a pass without gradients.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    setattr(model, GATHERED_NARROW, bf16)
    _materialise(model, device)


def _materialise(model: PreTrainedModel, device: torch.device) -> None:
    """Give parameters and buffers memory on a device; what is shared stays shared."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                places.setdefault(id(weight), []).append((module, name))
    model.to_empty(device=device)
    for (first, own), *others in places.values():
        for module, name in others:
            module._parameters[name] = first._parameters[own]


@torch.no_grad()
def scatter(model: PreTrainedModel, plain: PreTrainedModel | None) -> None:
    """Set parameters and buffers to those of a plain model, one at a time; every process takes
    part.

    Args:
        model: sharded. Weights take the types that they have in it.
        plain: the same modules; None except on the first process.
    """
    given = dict(plain.named_parameters()) if plain else {}
    for name, part in model.named_parameters():
        assert isinstance(part, DTensor), f"{name} is not sharded"
        made = torch.empty(part.shape, dtype=part.dtype, device=part.device)
        if plain:
            made.copy_(given[name])
        own = distribute_tensor(made, part.device_mesh, part.placements)
        part.to_local().copy_(own.to_local())
    held = _buffers(plain) if plain else {}
    for name, buffer in _buffers(model).items():
        if plain:
            buffer.copy_(held[name])
        dist.broadcast(buffer, 0)


@torch.no_grad()
def gather(
    model: PreTrainedModel, outline: PreTrainedModel, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """A plain model with the values of a sharded one, on the first process, in main memory; every
    process takes part, holding one parameter at a time.

    Args:
        outline: the same modules on the meta device; on the first process it becomes the result.
        dtype: of floating-point weights; None leaves them as they are.
    """
    first, held = dist.get_rank() == 0, {}
    own = dict(outline.named_parameters())
    for name, part in model.named_parameters():
        value = whole(part)
        if first:
            kept = value.to("cpu", dtype if dtype and value.is_floating_point() else value.dtype)
            held[id(own[name])] = nn.Parameter(kept, part.requires_grad)
    buffers = _buffers(model)
    for prefix, module in outline.named_modules() if first else ():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = held[id(weight)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffers[f"{prefix}.{name}".lstrip(".")].cpu()
    outline.generation_config = model.generation_config
    return outline


def _buffers(model: PreTrainedModel) -> dict[str, Tensor]:
    """The buffers of all modules, by name; one that several share, such as the scale of Gemma's
    embedding, is there under each.
    """
    return dict(model.named_buffers(remove_duplicate=False))


class Settings(NamedTuple):
    """What an outline of a model needs to know: its configurations, and the types of its frozen
    weights by name.
    """

    config: PreTrainedConfig
    generation_config: GenerationConfig | None
    frozen: dict[str, torch.dtype]


def settings_of(model: PreTrainedModel) -> Settings:
    """The settings of a model."""
    frozen = {n: weight.dtype for n, weight in model.named_parameters() if not weight.requires_grad}
    return Settings(model.config, model.generation_config, frozen)
