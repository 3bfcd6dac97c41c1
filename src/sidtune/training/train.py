"""The training pipeline; read `train`, `prepare` and `run_stage` from top to bottom."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainingArguments

from sidtune.base.errors import UserError
from sidtune.base.signals import StopRequest
from sidtune.base.storage import write_text
from sidtune.base.terminal import console, starting, warn
from sidtune.checks.run import refuse_errors
from sidtune.distributed.environment import settle_environment
from sidtune.distributed.launch import join_after_restart, warn_of_idle_gpus
from sidtune.distributed.processes import (
    all_or_none,
    alone_if_needed,
    by_first,
    first_goes_ahead,
    noticing_lost_peers,
)
from sidtune.encoding.corpus import EncodedTask
from sidtune.encoding.frame import Frame
from sidtune.inputs import Inputs
from sidtune.model.load import base_dtype
from sidtune.runs import output
from sidtune.runs.checkpoints import FINAL, PRECISION, step_of
from sidtune.runs.files import PLAN, TrainingPlan
from sidtune.runs.output import Start
from sidtune.runs.resumed import refuse_broken_state, refuse_links
from sidtune.runs.schedule import SHORTER_WARMUP, following, long_warmup, stage_runs, total_steps
from sidtune.tasks.config import Config
from sidtune.training.arguments import settle_length, training_arguments
from sidtune.training.display.describe import (
    describe_model,
    describe_plan,
    describe_stage,
    describe_state,
    training_plan,
)
from sidtune.training.display.watching import closing_bars
from sidtune.training.guards.memory import fit_max_tokens
from sidtune.training.guards.out_of_memory import explaining_out_of_memory
from sidtune.training.guards.same_base import SameBase
from sidtune.training.identity import run_identity
from sidtune.training.loss.variant import sid_prefixes
from sidtune.training.memory.fit import Gpus
from sidtune.training.memory.tables import describe_memory
from sidtune.training.method import SUPERVISED, Method, Shared
from sidtune.training.precision import settle
from sidtune.training.records.card import training_of
from sidtune.training.records.result import Result, result_of
from sidtune.training.stage_model import begin, in_one_piece, loaded


def train(
    config: Config,
    resume: str = "auto",
    dry_run: bool = False,
    trust_remote_code: bool = False,
    other_processes: bool = False,
    method: Method = SUPERVISED,
    gpus: Gpus | None = None,
) -> Result | None:
    """Fine-tune as configured, stage by stage; returns the last stage's result, or None for a dry
    run.

    Args:
        resume: `auto`, `never`, `extend`, or the path of a checkpoint or of weights to start from.
        dry_run: do everything up to the first step, print the plan and stop.
        trust_remote_code: allow Python code shipped with the base to run.
        other_processes: resume even if a different number of processes wrote the checkpoint.
        method: how to train; by default, supervised.
        gpus: of a dry run: GPUs to plan for.

    Raises:
        UserError: for any mistake in configuration, data or model.
        Interrupted: after SIGTERM or SIGINT, once the step is finished and its checkpoint saved.
    """
    settle_environment()
    warn_of_idle_gpus()
    join_after_restart()
    result, start, request = None, Start(), StopRequest()
    with noticing_lost_peers(), contextlib.ExitStack() as held:
        inputs, stages = Inputs(config, trust_remote_code), stage_runs(config)
        folders = [stage.output_dir for stage in stages]
        refuse_links(folders)
        arguments = training_arguments(config)
        settling = [*method.earlier, *folders]
        inputs.frame = by_first(lambda: settled_frame(inputs, settling), arguments)
        shared = prepare(inputs, method, arguments)
        if not dry_run:
            begun = output.begun(folders, resume, shared.identity, other_processes)
            start = by_first(lambda: held.enter_context(begun), arguments)
            held.enter_context(request.listening())
        elif resume not in ("auto", "never"):
            # Nothing is written, but the named folder must exist and fit this run.
            start = by_first(
                lambda: output.find_start(folders, resume, shared.identity, other_processes),
                arguments,
            )
        if start.checkpoint:
            refuse_broken_state(start.checkpoint)
        shared = with_precision(shared, start, arguments)
        if config.training.distributed == "fsdp2":
            held.enter_context(alone_if_needed())
        for number in range(start.stage, len(stages)):
            with explaining_out_of_memory(stages[number]):
                result = run_stage(shared, stages, number, start, dry_run, request, method, gpus)
            # A dry run leaves no weights for the next stage.
            start = Start(weights=None if dry_run else folders[number] / FINAL, stage=number + 1)
            # Trainer and model form a reference cycle, whose memory must be free for the next
            # stage.
            gc.collect()
    return result


def settled_frame(inputs: Inputs, folders: Sequence[Path]) -> Frame | None:
    """The text around examples, from the run's checkpoints or else rendered now; None if that
    fails.

    A chat template may write the time, so it is rendered once per run, on rank 0.
    """
    try:
        chat = inputs.config.template.format == "chat"
        return output.kept_frame(folders, chat) or inputs.mixture.frame
    except UserError:
        # The checks find the same error and report it with all others.
        return None


def prepare(inputs: Inputs, method: Method, arguments: TrainingArguments) -> Shared:
    """Check and encode the data, and collect the run's identity; local rank 0 goes first."""

    def encode() -> tuple[list[EncodedTask], list[EncodedTask]]:
        if arguments.process_index == 0:
            starting("Checking and encoding the data: longest the first time, then cached")
            refuse_errors(inputs)
        return inputs.mixture.train(), inputs.mixture.valid()

    training_tasks, valid_tasks = first_goes_ahead(encode, arguments)
    identity = run_identity(inputs, arguments.world_size) | method.settings(inputs)
    return Shared(inputs, training_tasks, valid_tasks, identity, sid_prefixes(inputs))


def with_precision(shared: Shared, start: Start, arguments: TrainingArguments) -> Shared:
    """Resolve the precision on rank 0 and add it to the identity that checkpoints save."""
    config, model_config = shared.inputs.config, shared.inputs.model_config
    origin = start.checkpoint or (start.weights if start.stage else None)
    hidden = getattr(model_config.get_text_config(), "hidden_size", 0)
    settled = by_first(lambda: settle(config.training, hidden, origin), arguments)
    return replace(shared, identity=shared.identity | {PRECISION: settled})


def run_stage(
    shared: Shared,
    stages: list[Config],
    number: int,
    start: Start,
    dry_run: bool,
    request: StopRequest,
    method: Method,
    gpus: Gpus | None,
) -> Result | None:
    """Train one stage and write its result; most runs have only one.

    Args:
        stages: configurations of all stages.
        number: index of this stage, from 0.
        request: whether this process was asked to stop.
        gpus: of a dry run: GPUs to plan for.
    """
    config, inputs, identity = stages[number], shared.inputs, shared.identity
    arguments, last = training_arguments(config, identity[PRECISION]), number == len(stages) - 1
    # A plan needs no weights, except those that must be checked against the run.
    outlined = dry_run and method is SUPERVISED and not start.weights
    if not dry_run:
        refuse_idle_sharing(config, arguments)
    model = loaded(config, inputs, arguments, outlined)
    steps = method.steps(shared, config, model, arguments)
    steps.plan = following(steps.plan, stages[:number])
    if arguments.process_index == 0:
        describe_stage(number, len(stages))
        describe_model(model, inputs.vocabulary, config.model)
        describe_plan(config, shared.training, steps, arguments)
        if dry_run and method is SUPERVISED:
            describe_memory(config, shared, steps, arguments, gpus)
        else:
            describe_state(model, config.training, estimable=method is SUPERVISED)
        warn_of_long_warmup(config, total_steps(config.training, steps.plan))
    settle_length(arguments, total_steps(config.training, steps.plan))
    announce(start, arguments)
    keeps_adapter = last and config.model.lora.save_adapter and not outlined
    same_base = SameBase(model) if keeps_adapter else None
    begin(model, start, config, inputs, arguments)
    if same_base:
        same_base.refuse_others(model, start.weights)
    if dry_run:
        return None
    if arguments.should_save:
        plan = training_plan(config, shared.training, steps, model, arguments)
        write_settings(inputs.config, config, plan)
    arguments.eval_on_start = start.checkpoint is None
    trainer = method.trainer(shared, config, model, steps, arguments, request)
    trainer.extended = start.extended
    fit_max_tokens(trainer, config.training)
    began = time.monotonic()
    with closing_bars(trainer):
        trainer.train(resume_from_checkpoint=str(start.checkpoint) if start.checkpoint else None)
    if trainer.untouched:
        trainer.untouched.verify(trainer.state.global_step)
    result = result_of(trainer.state, config, time.monotonic() - began)
    dtype = base_dtype(config.model, inputs.trust_remote_code) if last else None
    whole = in_one_piece(model, config, inputs, dtype if config.model.tuning == "full" else None)
    all_or_none(
        lambda: leave_result(shared, config, whole, arguments, dtype, same_base, result), arguments
    )
    return result


def refuse_idle_sharing(config: Config, arguments: TrainingArguments) -> None:
    """Raises `UserError` for a single process that is to exchange gradients."""
    if config.training.distributed == "ddp" and arguments.world_size == 1:
        raise UserError(
            "training.distributed is ddp, but there is one process",
            "Start several with --processes N, or use training.distributed: auto.",
        )


def warn_of_long_warmup(config: Config, steps: int) -> None:
    """Say that the learning rate rises for a large part of the stage, if it does."""
    if message := long_warmup(config.training, steps):
        warn(f"training.warmup: {message}. {SHORTER_WARMUP}")


def leave_result(
    shared: Shared,
    config: Config,
    model: PreTrainedModel,
    arguments: TrainingArguments,
    dtype: torch.dtype | None,
    same_base: SameBase | None,
    result: Result,
) -> None:
    """Write what a stage leaves: the run's model after the last one, weights for the next one after
    the others.

    Args:
        model: in one piece.
        dtype: of the run's model; None after a stage that is not the last.
    """
    if not arguments.should_save:
        return
    inputs, identity, tokenizer = shared.inputs, shared.identity, shared.inputs.vocabulary.tokenizer
    if dtype is None:
        output.write_stage(model, tokenizer, inputs.bundle, config.output_dir, identity)
        return
    about = training_of(inputs, config, model, identity[PRECISION], result.outcome)
    if same_base:
        same_base.leave_adapter(model, config, inputs)
    output.write_result(model, tokenizer, inputs.bundle, config.output_dir, identity, dtype, about)


def write_settings(run: Config, stage: Config, plan: TrainingPlan) -> None:
    """Leave the configuration of the run and that of its stage, and the plan."""
    # The run's own first: a folder with a stage but no configuration would be refused as foreign.
    output.write_config(run)
    if stage.output_dir != run.output_dir:
        output.write_config(stage)
    write_text(stage.output_dir / PLAN, json.dumps(asdict(plan)) + "\n")


def announce(start: Start, arguments: TrainingArguments) -> None:
    """Print what the run starts from.

    Raises:
        UserError: for an extended run that would not become longer.
    """
    made = step_of(start.checkpoint) if start.extended and start.checkpoint else -1
    if made >= arguments.max_steps:
        raise UserError(
            f"--extend: the run has made {made:,} steps, and its new length is"
            f" {arguments.max_steps:,}",
            "Raise training.epochs or training.max_steps, or the length of the last stage.",
        )
    if arguments.process_index:
        return
    for folder, reason in start.skipped:
        console.print(f"Skipping {folder}, which is incomplete: {reason}.", markup=False)
    if start.extended:
        console.print(
            f"Extending the run to {arguments.max_steps:,} steps: the optimizer's state is kept,"
            " and the learning rate is from now on that of a run planned with this length.",
            markup=False,
        )
    if start.checkpoint:
        console.print(f"Resuming from {start.checkpoint}.", markup=False)
    if start.weights:
        anew = (
            "optimizer and schedule"
            if start.stage
            else "optimizer, schedule and position in the data"
        )
        console.print(
            f"Starting from the weights in {start.weights}: {anew} start from scratch.",
            markup=False,
        )
