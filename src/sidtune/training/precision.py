"""The precision of forward passes: chosen when a run begins, and saved with it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.config.training import TrainingConfig
from sidtune.model.bf16 import device_type, emulated, has_bf16
from sidtune.runs.checkpoints import PRECISION, read_identity

Precision = Literal["bf16", "fp32"]
# Below this hidden size, a CPU spends more time on conversions than bfloat16 matmuls save.
CPU_HIDDEN = 256


def choose(training: TrainingConfig, hidden_size: int = 0) -> Precision:
    """The configured precision, or what `auto` means on this machine.

    Args:
        hidden_size: of the model; 0 if unknown.

    Raises:
        UserError: for bf16 on a GPU that cannot compute it.
    """
    device = device_type()
    if training.precision == "auto":
        large = device != "cpu" or hidden_size >= CPU_HIDDEN
        return "bf16" if large and has_bf16(device) else "fp32"
    refuse_impossible(training.precision, "Use precision: fp32 or auto.")
    return training.precision


def refuse_impossible(precision: Precision, hint: str) -> None:
    """Raises `UserError` for bf16 on a GPU that cannot even emulate it."""
    if precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise UserError("training.precision is bf16, which this GPU does not support", hint)


def settle(training: TrainingConfig, hidden_size: int, origin: Path | None) -> Precision:
    """The precision of a run, resolved on rank 0: a resumed run keeps the one it started with.

    Args:
        hidden_size: of the model.
        origin: the checkpoint or stage result that the run continues from; None for a new run.

    Raises:
        UserError: if this machine does not support it, or the checkpoint records an unknown one.
    """
    kept = read_identity(origin).get(PRECISION) if origin else None
    if kept not in (None, "bf16", "fp32"):
        raise UserError(f"{origin}: unknown {PRECISION} {kept!r:.80}", "Use another checkpoint.")
    if training.precision != "auto":
        if kept not in (None, training.precision):
            warn(
                f"{PRECISION}: {kept} in {origin}, {training.precision} now; the resumed run is not"
                " bit-identical"
            )
        return choose(training, hidden_size)
    if kept is None:
        chosen = choose(training, hidden_size)
        if origin:
            warn(f"{origin} does not record the precision it was trained in; resuming in {chosen}")
        return chosen
    refuse_impossible(
        kept,
        f"{origin} was trained in bf16. Resume on hardware with bf16, or set {PRECISION}: fp32.",
    )
    slow = emulated(kept)
    if slow:
        warn(
            f"the run is resumed in bf16, in which it began, but {slow}. {PRECISION}: fp32 is"
            " faster here"
        )
    return "bf16" if kept == "bf16" else "fp32"
