"""Checks of the configuration: keys without effect, and values unsuitable for the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sidtune.batching.plan import Plan
from sidtune.checks.finding import Finding
from sidtune.inputs import Inputs
from sidtune.model.bf16 import emulated
from sidtune.runs.checkpoints import FINAL
from sidtune.runs.schedule import SHORTER_WARMUP, long_warmup, stage_runs
from sidtune.tasks import TASKS


def idle_options(inputs: Inputs) -> Iterator[Finding]:
    """Files and keys without effect."""
    config, tasks = inputs.config, inputs.config.task_options()
    for needed in dict.fromkeys(task.needs for task in TASKS.values() if task.needs):
        readers = [name for name, task in TASKS.items() if task.needs == needed]
        if getattr(config.data, needed) is not None and not any(name in tasks for name in readers):
            remedy = f"Add a task that reads it ({' or '.join(readers)}), or remove it."
            yield Finding(
                "warning",
                f"data.{needed}",
                "has no effect: no task of the mixture reads this file",
                [],
                remedy,
            )
    if config.evaluation_task not in tasks:
        message = (
            f"evaluation and `recommend` use {config.evaluation_task}, which is not a task of the"
            " mixture"
        )
        yield Finding("warning", "tasks", message, [], "Add sid_next or sid_sequence.")
    if config.model.new_rows == "text" and not len(inputs.vocabulary.new_ids):
        message = "has no effect: the base already has a trained row for every SID token"
        yield Finding("warning", "model.new_rows", message, [], "Remove it.")
    if config.eval.ranking.every is None and config.eval.ranking.model_fields_set - {"every"}:
        yield Finding(
            "warning",
            "eval.ranking",
            "has no effect without eval.ranking.every",
            [],
            "Set eval.ranking.every, for example to 1.",
        )
    if config.model.from_scratch and "new_rows" in config.model.model_fields_set:
        message = "has no effect with from_scratch: all rows are initialised randomly"
        yield Finding("warning", "model.new_rows", message, [], "Remove it.")


def precision(inputs: Inputs) -> Iterator[Finding]:
    """An explicit bf16 that is slower than float32 on this machine."""
    slow = emulated(inputs.config.training.precision)
    if slow:
        yield Finding(
            "warning",
            "training.precision",
            f"bf16, but {slow}",
            [],
            "Set it to auto, or remove it.",
        )


def loss(inputs: Inputs) -> Iterator[Finding]:
    """A loss over the allowed tokens needs a task whose response contains a SID."""
    forms = [form for task in inputs.config.tasks for form in TASKS[task].forms.values()]
    if inputs.config.loss.looks_at_prefixes and not any(
        "sid" in name for form in forms for name in form.response
    ):
        message, remedy = (
            "changes the loss of SID tokens, but no task of the mixture has a SID in its response",
            "Remove it.",
        )
        yield Finding("warning", "loss", message, [], remedy)


def warmup(inputs: Inputs) -> Iterator[Finding]:
    """A warmup at least as long as the run or stage; training repeats this check with the exact
    number of steps.
    """
    config = inputs.config
    if not config.training.warmup >= 1:
        return
    runs = stage_runs(config)
    for number, run in enumerate(runs, start=1):
        # Includes examples that are too long to be encoded, so it is an upper bound on the steps of
        # a run.
        steps = run.training.max_steps or run.training.epochs * _steps_per_epoch(inputs)
        if message := long_warmup(run.training, steps):
            where = f"training.warmup, stage {number}" if len(runs) > 1 else "training.warmup"
            yield Finding("warning", where, message, [], SHORTER_WARMUP)


def _steps_per_epoch(inputs: Inputs) -> int:
    """Steps per epoch if every example fits the length limit."""
    given, none = inputs.config.task_options(), np.zeros(0, np.int64)
    sizes = [
        sum(map(len, inputs.mixture.parts(name, "train", options)))
        for name, options in given.items()
    ]
    training, config = inputs.config.training, inputs.config
    weights = [options.weight for options in given.values()]
    return Plan(none, sizes, weights, training.batch_size, "example", config.seed).steps_per_epoch


def output(inputs: Inputs) -> Iterator[Finding]:
    folder: Path = inputs.config.output_dir
    if (folder / FINAL).exists():
        message, remedy = "contains a finished run", "Choose another output_dir to train again."
        yield Finding("warning", f"output_dir {folder}", message, [], remedy)
