"""How the two moments of AdamW are held between steps: in float32, bfloat16 or eight bits."""

from __future__ import annotations

import importlib.util
import logging
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sidtune.base.errors import UserError
from sidtune.config.training import StateKind
from sidtune.model.bf16 import device_type
from sidtune.model.sharding.shards import own_part
from sidtune.model.tuning.quantised import INSTALL

MOMENTS = ("exp_avg", "exp_avg_sq")
# The state of a moment in eight bits has the largest value of each block beside it.
SCALE = "_scale"
# Blocks of bitsandbytes that are tried, largest first, and its smallest weight in eight bits.
BLOCKS, SMALLEST = (256, 128, 64), 4096
# The widest gap between two values that eight bits stand for is .014 of the largest value.
DEVIATES = 0.01


def block_of(shape: torch.Size) -> int | None:
    """Values of a block in eight bits, all of one row; None for a weight that stays in float32.

    Where blocks never reach over the rows of a weight, they do not depend on how rows are divided
    among processes, and a row of an embedding that has no gradient decays as it should.
    """
    row = math.prod(shape[1:])
    if len(shape) < 2 or math.prod(shape) < SMALLEST:
        return None
    return next((size for size in BLOCKS if row % size == 0), None)


def begin(weight: Tensor, kind: StateKind, offload: bool) -> dict[str, Tensor]:
    """The state before the first step, in main memory if `offload`; sharded as the weight is."""
    # Copies between pinned memory and a GPU need not wait for each other.
    place: Any = {"device": "cpu", "pin_memory": weight.is_cuda} if offload else {}
    place["memory_format"] = torch.contiguous_format
    weight, block = weight.detach(), block_of(weight.shape) if kind == "8bit" else None
    dtype = torch.uint8 if block else torch.bfloat16 if kind == "bf16" else torch.float32
    state = {"step": torch.zeros(())}
    for name in MOMENTS:
        state[name] = torch.zeros_like(weight, dtype=dtype, **place)
        if block:
            blocks = weight.flatten(1)[:, : math.prod(weight.shape[1:]) // block]
            state[name + SCALE] = torch.zeros_like(blocks, dtype=torch.float32, **place)
    return state


def state_bytes(weight: Tensor, kind: StateKind) -> int:
    """Bytes of both moments, or of this process's shards of them."""
    own = own_part(weight).numel()
    if kind == "bf16":
        return 2 * 2 * own
    block = block_of(weight.shape) if kind == "8bit" else None
    return 2 * (own + 4 * own // block) if block else 2 * 4 * own


def optimizer_bytes(model: nn.Module, kind: StateKind) -> int:
    """Bytes of both moments of all trained weights, or of this process's shards of them."""
    return sum(state_bytes(w, kind) for w in model.parameters() if w.requires_grad)


def unpacked(state: dict[str, Tensor], name: str, part: slice, device: torch.device) -> Tensor:
    """A moment in float32, on a device.

    Args:
        state: flat, of one weight.
        part: whole blocks of it.
    """
    held = state[name][part].to(device, non_blocking=True)
    if held.dtype == torch.uint8:
        scale = _scale(state, name, part).to(device, non_blocking=True)
        functional: Any = _bitsandbytes()
        block = _block(state, name)
        made: Tensor = functional.dequantize_blockwise(
            held, absmax=scale, code=_values(name, device), blocksize=block
        )
        return made
    # A copy, where nothing was converted: the moment is changed in place.
    return held.to(torch.float32, copy=held.device == state[name].device)


def pack(
    moment: Tensor, state: dict[str, Tensor], name: str, part: slice, generator: torch.Generator
) -> None:
    """Put a moment back into the state.

    Args:
        generator: rounds to bfloat16, up or down at random so that the mean is right. Rounding to
            the nearest would undo every decay of the second moment, which is .001 of it.
    """
    held = state[name]
    if held.dtype == torch.uint8:
        functional: Any = _bitsandbytes()
        values = _values(name, moment.device)
        moment, made = functional.quantize_blockwise(
            moment, code=values, blocksize=_block(state, name)
        )
        _scale(state, name, part).copy_(made.absmax, non_blocking=True)
    elif held.dtype == torch.bfloat16:
        moment = rounded(moment, generator)
    held[part].copy_(moment, non_blocking=True)


def rounded(values: Tensor, generator: torch.Generator) -> Tensor:
    """Values in bfloat16, rounded up or down at random: the nearer one is the more probable, and
    the mean is the value.
    """
    noise = torch.randint(
        0, 1 << 16, values.shape, dtype=torch.int32, device=values.device, generator=generator
    )
    # The upper half of a float32 is the bfloat16 towards zero.
    bits = noise.add_(values.view(torch.int32)).bitwise_and_(-(1 << 16))
    return bits.view(torch.float32).to(torch.bfloat16)


def moments_fault(kind: StateKind) -> UserError | None:
    """The error where moments cannot be held so on this machine: bitsandbytes, which packs them
    into eight bits, is missing or wrong.
    """
    if kind != "8bit":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        return UserError("training.optimizer_state: 8bit needs the package bitsandbytes", INSTALL)
    device = device_type()
    try:
        where = torch.device(device)
        deviation = max(_deviation(name, block, where) for name in MOMENTS for block in BLOCKS)
    except Exception as error:
        # Missing kernels raise exceptions of many types.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    else:
        if deviation <= DEVIATES:
            return None
        reason = f"values deviate by {deviation:.2g} of the largest"
    return UserError(
        f"training.optimizer_state: 8bit: bitsandbytes does not work on this machine's {device}:"
        f" {reason}",
        "Use training.optimizer_state: bf16 or fp32, or another version of bitsandbytes.",
    )


def _deviation(name: str, block: int, device: torch.device) -> float:
    """How far values are from what they were, as a share of the largest of their block."""
    rows = SMALLEST // block
    weight, generator = torch.empty(rows, block, device=device), torch.Generator().manual_seed(0)
    state = {key: value.view(-1) for key, value in begin(weight, "8bit", False).items()}
    given = torch.randn(weight.numel(), generator=generator).to(device)
    given = given if name == MOMENTS[0] else given.square()
    everything = slice(0, weight.numel())
    pack(given, state, name, everything, torch.Generator())
    gap = (unpacked(state, name, everything, device) - given).abs().view_as(weight)
    return float((gap / given.abs().view_as(weight).amax(1, keepdim=True)).max())


def _block(state: dict[str, Tensor], name: str) -> int:
    return state[name].numel() // state[name + SCALE].numel()


def _scale(state: dict[str, Tensor], name: str, part: slice) -> Tensor:
    block = _block(state, name)
    return state[name + SCALE][part.start // block : -(-part.stop // block)]


@cache
def _values(name: str, device: torch.device) -> Tensor:
    """The 256 values that eight bits stand for; the second moment has no sign."""
    functional: Any = _bitsandbytes()
    made: Tensor = functional.create_dynamic_map(signed=name == MOMENTS[0]).to(device)
    return made


def _bitsandbytes() -> Any:
    # It warns of kernels that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes.functional

    return bitsandbytes.functional
