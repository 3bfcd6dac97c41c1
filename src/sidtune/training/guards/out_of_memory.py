"""Handles GPU out-of-memory errors: retries the step in smaller passes, or names the settings to
change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from sidtune.base.errors import OneProcessError
from sidtune.base.terminal import warn
from sidtune.batching.steps import Step, Steps
from sidtune.model.probe import ran_out_of_memory
from sidtune.tasks.config import Config


class SmallerPasses:
    """Halves the tokens per forward pass whenever a pass runs out of memory.

    Args:
        steps: of the run; their layout is changed.
        lay_out: makes a step, in the layout that `steps` has by then.
        allowed: false if the user set the size, or if there are other ranks, which would not retry
            too.
    """

    def __init__(self, steps: Steps, lay_out: Callable[[int], Step], allowed: bool) -> None:
        self.steps, self.lay_out, self.allowed, self.lowered = steps, lay_out, allowed, False

    def laid_out(self, step: Step, number: int) -> Step:
        """The step, laid out again if a loader worker prepared it with an earlier limit."""
        return (
            self.lay_out(number)
            if self.lowered and _largest(step) > self.steps.layout.limit
            else step
        )

    def lower(self, step: Step, number: int) -> bool:
        """Limit passes to half of this step's largest from now on; false if that is not possible.

        Args:
            step: the step that did not fit.
            number: index of the step, from 0.
        """
        longest = int(self.steps.corpus.lengths[self.steps.share(number)].max())
        largest = _largest(step)
        if not self.allowed or largest <= longest:
            return False
        limit = max(longest, largest // 2)
        self.steps.layout, self.lowered = replace(self.steps.layout, limit=limit), True
        warn(
            f"step {number + 1}: out of GPU memory; retrying with at most {limit:,} tokens per"
            " forward pass from now on"
        )
        return True


def _largest(step: Step) -> int:
    return max(batch.input_ids.size for batch in step["micro_batches"])


@contextmanager
def explaining_out_of_memory(config: Config) -> Iterator[None]:
    """Turn an allocator's error into one that names the keys to change."""
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        # The first two sentences; the rest is about the allocator's own settings.
        said = " ".join(". ".join(str(error).split(". ")[:2]).split()).rstrip(".")
        of_cpu = isinstance(error, MemoryError) or "CPUAllocator" in said
        raise OneProcessError(
            f"the {'machine' if of_cpu else 'GPU'} ran out of memory: {said or 'MemoryError'}",
            advice(config),
        ) from None


def advice(config: Config) -> str:
    """The settings that lower this run's memory, those that leave results unchanged first."""
    training = config.training
    if training.layout == "padded":
        first = (
            f"Lower training.micro_batch_size, now {training.micro_batch_size}: the loss stays the"
            " same."
        )
    elif training.max_tokens == "auto":
        first = "Set training.max_tokens to a number, such as 4096: the loss stays the same."
    else:
        first = f"Lower training.max_tokens, now {training.max_tokens}: the loss stays the same."
    then = [] if training.gradient_checkpointing else ["training.gradient_checkpointing: true"]
    if config.model.tuning == "full" and not training.offload_optimizer:
        then.append("training.offload_optimizer: true")
    if config.eval.ranking.every:
        then.append(
            f"a lower eval.ranking.beams, now {config.eval.ranking.beams}, if it happened while"
            " ranking"
        )
    then.append(f"a lower encoding.cutoff_len, now {config.encoding.cutoff_len}")
    if config.reinforces:
        then.append(f"a lower rl.group, now {config.rl.group}, or rl.beta: 0")
    elif training.distributed != "fsdp2" and not (training.compile or config.model.quantize):
        then.append("training.distributed: fsdp2 with several GPUs")
    if config.model.tuning == "full":
        if training.optimizer_state != "8bit" and not training.offload_optimizer:
            then.append("training.optimizer_state: 8bit")
        then.append("model.tuning: lora")
    elif config.model.tuning == "lora" and not config.model.quantize:
        then.append("model.quantize: nf4")
    return (
        f"{first} If that is not enough: {'; '.join(then)}. See “Out of memory” in"
        " docs/troubleshooting.md."
    )
