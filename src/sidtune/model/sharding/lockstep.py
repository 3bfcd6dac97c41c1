"""Forward passes of a sharded model, whose parameters all processes gather together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel

from sidtune.model.sharding.shards import computing, is_sharded


@contextmanager
def lockstep(model: PreTrainedModel) -> Iterator[None]:
    """Let processes run different numbers of forward passes, without gradients, within the context:
    one that has come to its end runs passes of one token until all have.

    The embedding and the output head stay in one piece, so that their rows can be read. A model
    that is not sharded needs none of this.
    """
    if not is_sharded(model):
        yield
        return
    sharded: Any = model
    device = sharded.device

    def running(here: int) -> int:
        """How many processes are about to run a pass; each says whether it is."""
        count = torch.tensor(here, device=device)
        dist.all_reduce(count)
        # Reading it would wait for the device, which only those do that have come to their end.
        return 1 if here else int(count)

    def announce(_: nn.Module, __: Any) -> None:
        running(1)

    sharded.set_reshard_after_forward(False, recurse=False)
    sharded.unshard()
    # Before the hook that gathers parameters.
    hook = sharded.register_forward_pre_hook(announce, prepend=True)
    try:
        yield
    finally:
        hook.remove()
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    with torch.no_grad(), computing(model):
        while running(0):
            sharded(input_ids=token, use_cache=False)
    sharded.set_reshard_after_forward(True, recurse=False)
    sharded.reshard()
