"""`max_tokens: auto` on a GPU: how many tokens of a forward pass fit, measured before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sidtune.batching.layouts import MicroBatch
from sidtune.batching.steps import Steps
from sidtune.config import TrainingConfig
from sidtune.model.frozen import parameter_counts
from sidtune.terminal import console
from sidtune.training.lay_out import measures_memory
from sidtune.training.trainer import StepTrainer

# Two passes of about these sizes give the line that memory follows; both are small, so that neither runs out.
PROBED = (1024, 4096)
# What the allocator loses to fragments, and the spread between steps.
USED_SHARE = 0.85
FEWEST, MOST, MULTIPLE = 512, 65_536, 256
ADAM_BYTES, EXCHANGE_BYTES = 8, 4


def fit_max_tokens(trainer: StepTrainer, training: TrainingConfig) -> None:
    """Measure what fits on this GPU, if asked to, and lay the steps out so; every process takes the least of all."""
    steps, device = trainer.steps, trainer.args.device
    if not measures_memory(training, device.type):
        return
    trained, _ = parameter_counts(trainer.language_model)
    later = trained * (ADAM_BYTES + (EXCHANGE_BYTES if steps.world_size > 1 else 0))
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    room = USED_SHARE * (free + unused) + torch.cuda.memory_allocated(device) - later
    with torch.random.fork_rng([device]):
        found = torch.tensor(tokens_that_fit(lambda tokens: _measure(trainer, tokens), room), device=device)
    if steps.world_size > 1:
        dist.all_reduce(found, dist.ReduceOp.MIN)
    steps.layout = replace(steps.layout, limit=int(found))
    if trainer.is_world_process_zero():
        console.print(f"max_tokens: auto found that {int(found):,} tokens a forward pass fit")


def tokens_that_fit(measure: Callable[[int], tuple[int, int]], room: float) -> int:
    """Tokens of one pass whose memory stays below `room`, taking memory for a straight line in tokens.

    Args:
        measure: from the tokens that a pass may have, the tokens it had and the bytes allocated at its peak.
        room: bytes that may be allocated.
    """
    (tokens, bytes_), (more_tokens, more_bytes) = (measure(limit) for limit in PROBED)
    slope = max(1.0, (more_bytes - bytes_) / max(1, more_tokens - tokens))
    fitting = tokens + (room - bytes_) / slope
    return int(min(max(fitting // MULTIPLE * MULTIPLE, FEWEST), MOST))


def largest_micro_batch(steps: Steps, limit: int) -> MicroBatch:
    """The pass with the most tokens among the first steps, if passes could have this many."""
    examples: list[int] = []
    number = 0
    # Sharing prefixes leaves a fraction of the tokens: eight times as many fill a pass.
    while steps.corpus.lengths[examples].sum() < 8 * limit and number < steps.plan.steps_per_epoch:
        examples.extend(steps.share(number).tolist())
        number += 1
    layout = replace(steps.layout, limit=limit)
    batches = layout.micro_batches([steps.corpus[i] for i in np.unique(examples).tolist()])
    return max(batches, key=lambda batch: batch.input_ids.numel())


def _measure(trainer: StepTrainer, limit: int) -> tuple[int, int]:
    """Tokens and peak memory of one forward and backward pass."""
    batch, device = largest_micro_batch(trainer.steps, limit), trainer.args.device
    model: Any = trainer.model
    model.train()
    torch.cuda.reset_peak_memory_stats(device)
    with trainer.accelerator.autocast():
        loss, _ = model(**batch.to(device))
    loss.backward()
    model.zero_grad(set_to_none=True)
    return batch.input_ids.numel(), torch.cuda.max_memory_allocated(device)
