"""`max_tokens: auto` on a GPU: measures before the first step how many tokens fit in a forward
pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sidtune.base.errors import UserError
from sidtune.base.terminal import console
from sidtune.batching.layouts import MicroBatch
from sidtune.batching.steps import Steps
from sidtune.config.training import TrainingConfig
from sidtune.model.optimizer.moments import optimizer_bytes
from sidtune.model.sharding.shards import is_sharded, own_part
from sidtune.training.make_steps import measures_memory
from sidtune.training.trainer import StepTrainer

# Memory is modelled as a line through two passes of about these sizes, or of these multiples of the
# longest example if larger.
PROBED, LONGEST_MULTIPLES = (1024, 4096), (2, 6)
# Leaves room for allocator fragmentation and variation between steps.
USED_SHARE = 0.85
MOST_TOKENS, MULTIPLE = 65_536, 256


def fit_max_tokens(trainer: StepTrainer, training: TrainingConfig) -> None:
    """If `auto`, measure the tokens that fit on this GPU, and limit passes to the minimum over
    ranks.
    """
    steps, device = trainer.steps, trainer.args.device
    if not measures_memory(training, device.type):
        return
    model = trainer.language_model
    state = 0 if training.offload_optimizer else optimizer_bytes(model, training.optimizer_state)
    # DDP's buckets are as large as the gradients, which are in float32 like the weights.
    exchanged = steps.world_size > 1 and not is_sharded(model)
    trained = sum(own_part(w).nbytes for w in model.parameters() if w.requires_grad)
    later = state + (trained if exchanged else 0)
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    room = USED_SHARE * (free + unused) + torch.cuda.memory_allocated(device) - later
    with torch.random.fork_rng([device]):
        longest = int(steps.corpus.lengths.max())
        fitting = tokens_that_fit(lambda tokens: _measure(trainer, tokens), room, longest)
    found = torch.tensor(fitting, device=device)
    if steps.world_size > 1:
        dist.all_reduce(found, dist.ReduceOp.MIN)
    steps.layout = replace(steps.layout, limit=int(found))
    if trainer.is_world_process_zero():
        console.print(f"max_tokens: auto measured that {int(found):,} tokens per forward pass fit")


def tokens_that_fit(measure: Callable[[int], tuple[int, int]], room: float, longest: int) -> int:
    """Tokens of one pass whose memory stays below `room`, assuming memory is linear in tokens.

    Args:
        measure: maps a token limit to the tokens of a pass and the peak bytes allocated.
        room: bytes that may be allocated.
        longest: tokens of the longest example, which must fit.

    Raises:
        UserError: where not even the longest example fits.
    """
    limits = [
        max(size, multiple * longest)
        for size, multiple in zip(PROBED, LONGEST_MULTIPLES, strict=True)
    ]
    (tokens, bytes_), (more_tokens, more_bytes) = (measure(limit) for limit in limits)
    # With too few examples for a larger pass, all memory is attributed to tokens.
    spread = more_tokens - tokens
    slope = max(1.0, (more_bytes - bytes_) / spread) if spread > 0 else more_bytes / more_tokens
    fitting = more_tokens + (room - more_bytes) / slope
    if fitting < longest:
        raise UserError(
            f"about {max(0, int(fitting)):,} tokens fit on this GPU, but the longest example has"
            f" {longest:,}",
            "Lower encoding.cutoff_len, or set training.gradient_checkpointing: true or"
            " model.tuning: lora.",
        )
    return int(min(max(fitting // MULTIPLE * MULTIPLE, longest), MOST_TOKENS))


def largest_micro_batch(steps: Steps, limit: int) -> MicroBatch:
    """The micro-batch with the most tokens among the first steps, laid out with this limit."""
    examples: list[int] = []
    number = 0
    # Sharing prefixes removes most tokens: eight times as many are enough to fill a pass.
    while steps.corpus.lengths[examples].sum() < 8 * limit and number < steps.plan.steps_per_epoch:
        examples.extend(steps.share(number).tolist())
        number += 1
    layout = replace(steps.layout, limit=limit)
    batches = layout.micro_batches([steps.corpus[i] for i in np.unique(examples).tolist()])
    return max(batches, key=lambda batch: batch.input_ids.size)


def _measure(trainer: StepTrainer, limit: int) -> tuple[int, int]:
    """Tokens and peak memory of one forward and backward pass."""
    batch, device = largest_micro_batch(trainer.steps, limit), trainer.args.device
    model: Any = trainer.model
    model.train()
    torch.cuda.reset_peak_memory_stats(device)
    # The second pass runs with gradients in memory, like all but the first of a step.
    for _ in range(2):
        with trainer.accelerator.autocast():
            loss, _ = model(**batch.to(device))
        loss.backward()
    model.zero_grad(set_to_none=True)
    return batch.input_ids.size, torch.cuda.max_memory_allocated(device)
