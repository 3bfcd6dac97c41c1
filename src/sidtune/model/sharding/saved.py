"""Checkpoints of a sharded model: every process writes its shards, and any number reads them.

The files are safetensors with the place of each shard in their headers, written and read by
`torch.distributed.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer
from transformers import PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.files.shards import SHARDS
from sidtune.model.unchanged import Unchanged

# Whose exports are not declared for mypy.
dcp: Any = torch.distributed.checkpoint
# Folders of a checkpoint: what training changes, and weights that never change.
TRAINED, FROZEN = SHARDS, "frozen_shards"
# Bytes of one file, which is assembled in memory before it is written.
FILE_BYTES = 2**30
WEIGHT, STATE = "weight", "optimizer"


def save_shards(
    model: PreTrainedModel, optimizer: Optimizer, folder: Path, unchanged: Unchanged | None
) -> dict[str, str]:
    """Write weights and optimizer state into a checkpoint; every process takes part.

    Args:
        unchanged: if given, files of weights that training never changes are hard-linked instead of
            written.

    Returns:
        On the first process, the checksums of files that were on disk already, by their names in
        the checkpoint.
    """
    _write(_weights(model, trained=True) | _state(model, optimizer), folder / TRAINED)
    frozen = _weights(model, trained=False)
    if not frozen:
        return {}
    known: list[dict[str, str]] = [{}]
    if dist.get_rank() == 0 and unchanged and unchanged.files:
        (folder / FROZEN).mkdir()
        known = [unchanged.link_into(folder / FROZEN, frozenset())]
    dist.broadcast_object_list(known)
    if not known[0]:
        _write(frozen, folder / FROZEN)
    return {f"{FROZEN}/{name}": digest for name, digest in known[0].items()}


def load_shards(model: PreTrainedModel, checkpoint: Path) -> None:
    """Read all weights of a checkpoint; every process takes part.

    Raises:
        UserError: for files that are damaged, or of another model.
    """
    _read(_weights(model, trained=True), checkpoint / TRAINED)
    if frozen := _weights(model, trained=False):
        _read(frozen, checkpoint / FROZEN)


def load_optimizer_shards(model: PreTrainedModel, optimizer: Optimizer, checkpoint: Path) -> None:
    """Read the state of an optimizer that has made no step; every process takes part.

    Raises:
        UserError: as `load_shards`.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            # As AdamW makes it at its first step.
            made: Any = {
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }
            place = weight.device if group["fused"] else "cpu"
            optimizer.state[weight] = {"step": torch.zeros((), device=place), **made}
    _read(_state(model, optimizer), checkpoint / TRAINED)


def _weights(model: PreTrainedModel, trained: bool) -> dict[str, Tensor]:
    return {
        f"{WEIGHT}.{name}": weight.detach()
        for name, weight in model.named_parameters()
        if weight.requires_grad == trained
    }


def _state(model: PreTrainedModel, optimizer: Optimizer) -> dict[str, Tensor]:
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {
        f"{STATE}.{names[id(weight)]}.{key}": value
        for weight, state in optimizer.state.items()
        for key, value in state.items()
    }


def _write(tensors: dict[str, Tensor], folder: Path) -> None:
    number, filled, files = 1, 0, {}
    for name, tensor in tensors.items():
        if filled and filled + tensor.nbytes > FILE_BYTES * dist.get_world_size():
            number, filled = number + 1, 0
        files[name], filled = number, filled + tensor.nbytes
    writer = dcp.HuggingFaceStorageWriter(str(folder), files, save_distributed=True)
    with _own_errors():
        dcp.save(tensors, storage_writer=writer)


def _read(tensors: dict[str, Tensor], folder: Path) -> None:
    try:
        with _own_errors():
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)))
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the shards of a checkpoint cannot be read: {str(error)[:200]}",
            "Use another checkpoint.",
        ) from None


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise the error of the process that failed, instead of one that contains it."""
    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None
