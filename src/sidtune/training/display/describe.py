"""Prints the plan of a run before its first step."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import torch
from rich.table import Table
from transformers import PreTrainedModel, TrainingArguments

from sidtune.base.storage import GIB
from sidtune.base.terminal import console
from sidtune.batching.steps import Steps
from sidtune.config.model import ModelConfig
from sidtune.config.training import TrainingConfig
from sidtune.encoding.corpus import EncodedTask
from sidtune.model.optimizer.moments import optimizer_bytes
from sidtune.model.sharding.shards import own_part
from sidtune.model.tuning import tuning_of
from sidtune.runs.files import TaskPlan, TrainingPlan
from sidtune.runs.schedule import total_steps
from sidtune.tasks.config import Config
from sidtune.tokenizer.vocabulary import Vocabulary

SAMPLED_STEPS = 20
LENGTH_BINS = 40


def describe_stage(number: int, stages: int) -> None:
    """Print which stage starts, if there are several; `number` counts from 0."""
    if stages > 1:
        console.print(f"Stage {number + 1} of {stages}", style="bold")


def describe_model(model: PreTrainedModel, vocabulary: Vocabulary, config: ModelConfig) -> None:
    """Print the parameter counts and the numbers of SID tokens and embedding rows."""
    trainable, total = tuning_of(model).parameter_counts(model)
    rows = model.config.get_text_config().vocab_size
    console.print(
        f"{model.config.model_type} · {config.tuning} tuning · {trainable:,} of {total:,}"
        f" parameters trained · {len(vocabulary.sid_ids):,} SID tokens ({vocabulary.counts}) ·"
        f" vocabulary {rows:,}"
    )


def describe_plan(
    config: Config,
    tasks: list[EncodedTask],
    steps: Steps,
    arguments: TrainingArguments,
) -> None:
    """Print examples and tokens per task, and the number of steps."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    for title in ("examples", "weight", "tokens", "labels", "mean", "longest"):
        table.add_column(title, justify="right", no_wrap=True)
    options = config.task_options()
    for task in tasks:
        counts = task.counts
        table.add_row(
            task.name,
            f"{counts.examples:,}",
            f"{options[task.name].weight:,g}",
            f"{counts.tokens:,}",
            f"{counts.labels:,}",
            f"{counts.tokens / max(1, counts.examples):,.0f}",
            f"{counts.longest:,}",
        )
    console.print(table)
    for task in tasks:
        if task.counts.truncated or task.counts.dropped:
            console.print(
                f"{task.name}: {task.counts.truncated:,} examples truncated to"
                f" encoding.cutoff_len, {task.counts.dropped:,} dropped that do not fit even so"
            )
    console.print(_steps_line(config, steps, arguments))
    console.print(_tokens_line(steps))


def training_plan(
    config: Config,
    tasks: list[EncodedTask],
    steps: Steps,
    model: PreTrainedModel,
    arguments: TrainingArguments,
) -> TrainingPlan:
    """What a report says of the plan."""
    trained, total = tuning_of(model).parameter_counts(model)
    options, longest = config.task_options(), max(task.counts.longest for task in tasks)
    edges = np.unique(np.linspace(0, longest + 1, LENGTH_BINS + 1).round().astype(np.int64))
    device = arguments.device
    return TrainingPlan(
        model=model.config.model_type,
        parameters=total,
        trained_parameters=trained,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        processes=arguments.world_size,
        precision="bf16" if arguments.bf16 else "fp32",
        steps=total_steps(config.training, steps.plan),
        steps_per_epoch=steps.plan.steps_per_epoch,
        length_edges=edges.tolist(),
        tasks={
            task.name: TaskPlan(
                weight=options[task.name].weight,
                by_length=np.histogram(task.lengths, bins=edges)[0].tolist(),
                **asdict(task.counts),
            )
            for task in tasks
        },
    )


def _steps_line(config: Config, steps: Steps, arguments: TrainingArguments) -> str:
    plan, training = steps.plan, config.training
    total = total_steps(training, plan)
    every = (
        config.eval.every
        if isinstance(config.eval.every, int)
        else math.ceil(total * config.eval.every)
    )
    precision = "bf16 autocast" if arguments.bf16 else "fp32"
    shared = f" over {arguments.world_size} processes" if arguments.world_size > 1 else ""
    epochs = total / plan.steps_per_epoch
    noun = "epoch" if epochs == 1 else "epochs"
    return (
        f"{total:,} steps = {epochs:.4g} {noun} of {plan.steps_per_epoch:,} ·"
        f" {training.batch_size} examples per step{shared} ·"
        f" {precision} on {arguments.device.type} · evaluation and checkpoint every {every:,} steps"
    )


def _tokens_line(steps: Steps) -> str:
    """The effect of the layout on the tokens per step, measured on a few steps of the
    first epoch.
    """
    total = steps.plan.steps_per_epoch
    seen = range(0, total, -(-total // SAMPLED_STEPS))
    examples = np.concatenate([steps.share(number) for number in seen])
    batches = [batch for number in seen for batch in steps[number]["micro_batches"]]
    before = int(steps.corpus.lengths[examples].sum())
    after = sum(batch.tokens for batch in batches)
    computed = sum(batch.input_ids.size for batch in batches)
    return (
        f"layout {steps.layout.name}, examples by {steps.plan.group_by}: {before / len(seen):,.0f}"
        f" tokens per step and process, {after / len(seen):,.0f} after sharing prefixes,"
        f" {computed / len(seen):,.0f} with padding, in {len(batches) / len(seen):.1f} forward"
        f" passes (mean of {len(seen)} steps)"
    )


def held_bytes(model: PreTrainedModel, training: TrainingConfig) -> int:
    """Bytes that this process holds where it trains: all weights or its shards of them in their own
    dtypes, gradients of the trained ones, and the optimizer's state unless it is offloaded.
    """
    weights = sum(own_part(weight).nbytes for weight in model.parameters())
    trained = (weight for weight in model.parameters() if weight.requires_grad)
    gradients = sum(own_part(weight).nbytes for weight in trained)
    state = 0 if training.offload_optimizer else optimizer_bytes(model, training.optimizer_state)
    return weights + gradients + state


def describe_state(model: PreTrainedModel, training: TrainingConfig, estimable: bool) -> None:
    """Print the memory that one process holds between forward passes.

    Args:
        estimable: whether a dry run tells that of a forward pass.
    """
    rest = ", which a dry run estimates" if estimable else ""
    state = " (its state is in main memory)" if training.offload_optimizer else ""
    console.print(
        f"estimated memory: {held_bytes(model, training) / GIB:.2f} GiB for weights, gradients and"
        f" optimizer{state}, and activations beside them{rest}"
    )
