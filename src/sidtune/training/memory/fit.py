"""Whether a run fits on GPUs that are not at hand, and which settings would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from transformers import TrainingArguments

from sidtune.base.errors import UserError
from sidtune.base.storage import GIB
from sidtune.base.terminal import starting
from sidtune.batching.layouts import MicroBatch
from sidtune.batching.steps import Steps
from sidtune.tasks.config import Config
from sidtune.training.guards.memory import MOST_TOKENS, PROBED, USED_SHARE
from sidtune.training.memory.estimate import Memory, estimate
from sidtune.training.method import Shared

SHARING = "training.distributed"
STATE, OFFLOAD = "training.optimizer_state", "training.offload_optimizer"
# Steps whose passes are laid out to find the largest.
LOOKED_AT = 8


@dataclass(frozen=True)
class Gpus:
    """GPUs that a run is planned for, one process on each.

    Args:
        count: number of GPUs.
        gib: memory of each, in GiB.
    """

    count: int
    gib: float

    @property
    def room(self) -> float:
        """Bytes that a process may hold: the rest is left to fragmentation and the CUDA context."""
        return USED_SHARE * self.gib * GIB


@dataclass(frozen=True)
class Option:
    """A way to run, and its memory.

    Args:
        changes: keys of the configuration and their values; empty for the run as configured.
    """

    changes: Mapping[str, Any]
    memory: Memory

    def fits(self, gpus: Gpus) -> bool:
        """Whether it fits on each GPU."""
        return self.memory.total <= gpus.room


def as_configured(
    config: Config, shared: Shared, steps: Steps, arguments: TrainingArguments
) -> Memory:
    """The memory of the run as configured, on this machine."""
    processes, device = arguments.world_size, arguments.device.type
    batch = largest_pass(steps, steps.layout.limit, processes)
    return estimate(config, shared.inputs, batch, arguments.bf16, processes, device)


def options(config: Config, shared: Shared, steps: Steps, gpus: Gpus) -> list[Option]:
    """The run as configured on such GPUs and, where it does not fit, changes that take less memory.

    Raises:
        UserError: for more GPUs than a step has examples.
    """
    if config.training.batch_size < gpus.count:
        raise UserError(
            f"training.batch_size is {config.training.batch_size}, but --gpus is {gpus.count}",
            "Every process needs at least one example per step: raise training.batch_size.",
        )
    configured = _tried({}, config, shared, steps, gpus)
    if configured.fits(gpus):
        return [configured]
    starting("Estimating what would make it fit")
    longest = int(steps.corpus.lengths.max())
    changes = candidates(
        config, longest, configured.memory.tokens, bool(shared.inputs.config.stages), gpus.count
    )
    return [configured, *(_tried(change, config, shared, steps, gpus) for change in changes)]


def candidates(
    config: Config, longest: int, tokens: int, staged: bool, count: int
) -> Iterator[dict[str, Any]]:
    """Changes that take less memory, one at a time and then together.

    Args:
        longest: tokens of the longest example.
        tokens: of the largest pass as configured.
        staged: whether the run has several stages, whose tuning is not changed.
        count: number of GPUs.
    """
    training, model = config.training, config.model
    sharded = training.distributed == "fsdp2"
    pass_ = dict(_smaller_passes(config, longest, tokens))
    yield from ({key: value} for key, value in pass_.items())
    if len(pass_) > 1:
        yield pass_
    states = list(_smaller_states(config))
    for state in states:
        yield state
        if pass_:
            yield state | pass_
    if count > 1 and not (sharded or model.quantize or training.compile):
        yield {SHARING: "fsdp2"}
        if pass_:
            yield {SHARING: "fsdp2"} | pass_
        yield from ({SHARING: "fsdp2"} | pass_ | state for state in states)
    if staged or model.from_scratch or model.tuning == "frozen":
        return
    lora = {} if model.tuning == "lora" else {"model.tuning": "lora"}
    unpackable = model.quantize or model.lora.dora or model.lora.save_adapter
    # Quantised weights cannot be divided.
    packed = {} if unpackable else lora | {"model.quantize": "nf4"}
    if packed and sharded:
        packed[SHARING] = "ddp"
    for change in (lora, packed):
        if change:
            yield change
            if pass_:
                yield change | pass_


def _smaller_states(config: Config) -> Iterator[dict[str, Any]]:
    """Changes with which a GPU holds less of the optimizer's state, where there is much of it."""
    if config.training.offload_optimizer or "full" not in config.tunings:
        return
    if config.training.optimizer_state != "8bit":
        yield {STATE: "8bit"}
    yield {OFFLOAD: True}


def _smaller_passes(config: Config, longest: int, tokens: int) -> Iterator[tuple[str, Any]]:
    """Keys and values with which a pass holds less; arguments as in `candidates`."""
    training = config.training
    if training.precision == "fp32":
        yield "training.precision", "bf16"
    if training.layout == "padded" and training.micro_batch_size > 1:
        yield "training.micro_batch_size", 1
    elif training.layout != "padded" and training.max_tokens != "auto":
        floor = max(PROBED[0], longest)
        if tokens > floor:
            yield "training.max_tokens", floor
    if not training.gradient_checkpointing:
        yield "training.gradient_checkpointing", True


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with other values of some keys of `model` and `training`."""
    sections: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        sections[section][name] = value
    return config.model_copy(
        update={
            name: getattr(config, name).model_copy(update=update)
            for name, update in sections.items()
        }
    )


def _tried(
    changes: dict[str, Any], config: Config, shared: Shared, steps: Steps, gpus: Gpus
) -> Option:
    """The memory of a changed run; with `max_tokens: auto`, of the larger of two sizes that fits,
    else of the smaller one.
    """
    other = changed(config, changes)
    training = other.training
    if training.layout == "padded":
        limits = [training.micro_batch_size]
    elif training.max_tokens == "auto":
        limits = [MOST_TOKENS, max(PROBED[0], int(steps.corpus.lengths.max()))]
    else:
        limits = [training.max_tokens]
    bf16 = training.precision != "fp32"
    for limit in limits:
        batch = largest_pass(steps, limit, gpus.count)
        memory = estimate(other, shared.inputs, batch, bf16, gpus.count, "cuda")
        if memory.total <= gpus.room:
            break
    return Option(changes, memory)


def largest_pass(steps: Steps, limit: int, processes: int) -> MicroBatch:
    """The micro-batch with the most tokens among the first steps, in the shares of so many
    processes.

    Args:
        limit: of the layout.
    """
    layout = replace(steps.layout, limit=limit)
    laid_out = Steps(steps.corpus, steps.plan, layout, 0, processes)
    looked_at = range(min(LOOKED_AT, steps.plan.steps_per_epoch))
    batches = (batch for number in looked_at for batch in laid_out[number]["micro_batches"])
    return max(batches, key=lambda batch: batch.input_ids.size)
