"""Transformers' Trainer, with one whole optimizer step as its batch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from sidtune.batching.layouts import MicroBatch, idle_micro_batch
from sidtune.batching.steps import Step, StepLoader, Steps, shared_out
from sidtune.distributed.processes import largest
from sidtune.encoding.corpus import Corpus, EncodedTask
from sidtune.model.sharding.lockstep import lockstep
from sidtune.model.sharding.shards import is_sharded, whole
from sidtune.model.tuning import tuning_of
from sidtune.model.unchanged import Unchanged
from sidtune.runs.bundle import Bundle
from sidtune.training.guards import non_finite
from sidtune.training.guards.out_of_memory import SmallerPasses
from sidtune.training.guards.untouched import Untouched
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.saving import CheckpointingTrainer
from sidtune.training.throughput import Throughput, peak_gib
from sidtune.training.validation_ranking import ValidationRanking

EVALUATION_EXAMPLES = 512


class Wrapped(nn.Module):
    """A module inside another: what Trainer finds wrapped it leaves as it is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module inside."""
        return self.module(*args, **kwargs)


class StepTrainer(CheckpointingTrainer):
    """Trains on `Steps`: one item of the loader is this rank's micro-batches of one optimizer
    update.

    The loss of a step is the negative log likelihood summed over its labels and divided by their
    number, both over all ranks, so it is identical up to rounding for any layout, micro-batch size
    and number of processes.

    Args:
        model: the loss module around the language model.
        steps: the training plan, laid out.
        tasks: names of the training tasks, as numbered in the corpus.
        valid: encoded validation tasks, the evaluation task first.
        tokenizer: saved with every checkpoint.
        identity: settings that a resumed run must share.
        save_total_limit: checkpoints kept besides the best.
        bundle: files that every checkpoint holds beside its weights; called only when one is
            written.
        ranking: ranks a validation sample, if any.
        decay_embeddings: whether weight decay applies to token embeddings too.
        auto_tokens: whether forward passes may shrink when one runs out of GPU memory.
        optimizer: class and options; None for PyTorch's AdamW.
    """

    # Whether rankings are logged with their standard errors, so that close ones count as equal.
    errors: bool = True

    def __init__(
        self,
        model: LabelLoss,
        arguments: TrainingArguments,
        steps: Steps,
        tasks: list[str],
        valid: list[EncodedTask],
        tokenizer: PreTrainedTokenizerFast,
        identity: Mapping[str, Any],
        save_total_limit: int,
        bundle: Callable[[], Bundle],
        ranking: ValidationRanking | None,
        callbacks: list[TrainerCallback],
        decay_embeddings: bool = True,
        auto_tokens: bool = False,
        optimizer: tuple[type[Optimizer], dict[str, Any]] | None = None,
    ) -> None:
        by_name = {task.name: task for task in valid}
        self.sharded = is_sharded(model.model)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=steps,
            eval_dataset=by_name,
            callbacks=callbacks,
            optimizer_cls_and_kwargs=optimizer,
        )
        # It prints log entries as raw dicts; our own callbacks show them instead.
        self.remove_callback(PrinterCallback)
        self.steps, self.task_names, self.valid, self.tokenizer = steps, tasks, valid, tokenizer
        self.identity, self.save_total_limit = dict(identity), save_total_limit
        self.bundle, self.ranking, self.decay_embeddings = bundle, ranking, decay_embeddings
        keeps_base = tuning_of(self.language_model).keeps_base
        self.untouched = Untouched(self.language_model) if keeps_base else None
        if self.untouched:
            self.add_callback(self.untouched)
        self.unchanged = Unchanged() if keeps_base else None
        # Not with several ranks: a retry on one would leave the others waiting in the all-reduce.
        self.smaller_passes = SmallerPasses(
            steps, self._lay_out, auto_tokens and arguments.world_size == 1 and not self.sharded
        )
        self._taken: tuple[Step, Tensor] | None = None
        self._origin: str | None = None
        self._loader: StepLoader | None = None
        self._task_losses = torch.zeros(len(tasks), 2, dtype=torch.float64)
        self._throughput = Throughput()
        if arguments.world_size > 1:
            self._draw_anew()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer does; the workers of the loader end with it, however it ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            if self._loader:
                self._loader.close()

    def _wrap_model(self, model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        """Wrap a sharded model, with autocast, in a module that Trainer does not wrap in DDP."""
        if not self.sharded:
            wrapped: nn.Module = super()._wrap_model(model, *args, **kwargs)
            return wrapped
        if isinstance(model, Wrapped):
            return model
        given = {"device_placement": False, "evaluation_mode": True}
        return Wrapped(self.accelerator.prepare_model(model, **given))

    # --- the step ---

    def get_train_dataloader(self) -> StepLoader:
        """The loader as it is: `Steps` is already sharded by rank and must not be sharded again."""
        self._loader = StepLoader(self.steps, self.args.max_steps, self.args.dataloader_num_workers)
        return self._loader

    def get_batch_samples(self, *args: Any) -> tuple[list[Step], Any]:
        """Measure how long the loader took to deliver the step."""
        began = time.monotonic()
        batches: tuple[list[Step], Any] = super().get_batch_samples(*args)
        self._throughput.waited += time.monotonic() - began
        return batches

    def training_step(  # type: ignore[override]
        self, model: nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> Tensor:
        """Run the micro-batches of one step; if out of memory, retry with smaller ones where
        allowed.
        """
        model.train()
        number = self.state.global_step
        step = self.smaller_passes.laid_out(inputs, number)
        while (sums := self._passes_that_fit(model, step)) is None:
            model.zero_grad()
            torch.cuda.empty_cache()
            step = self._lay_out(number)
        self._taken = step, sums
        loss: Tensor = sums.sum() * (self.args.world_size / step["label_count"])
        return loss

    def _lay_out(self, number: int) -> Step:
        """A step in the layout that there is now."""
        return self.steps[number]

    def _passes_that_fit(self, model: nn.Module, step: Step) -> Tensor | None:
        """As `_passes`, or None if out of memory: a retry inside `except` would keep the failed
        pass's tensors alive.
        """
        try:
            return self._passes(model, step)
        except torch.OutOfMemoryError:
            if not self.smaller_passes.lower(step, self.state.global_step):
                raise
            return None

    def _passes(self, model: nn.Module, step: Step) -> Tensor:
        """Accumulate gradients, with one all-reduce at the last micro-batch; the loss sum per task,
        `(tasks,)`.
        """
        # DDP averages gradients over ranks, but the loss is a sum over ranks.
        scale = self.args.world_size / step["label_count"]
        micro_batches = step["micro_batches"]
        if self.sharded:
            micro_batches = self._as_many_as_others(micro_batches)
        sums = torch.zeros(len(self.task_names), device=self.args.device)
        for index, micro_batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                part, by_task = model(**micro_batch.to(self.args.device), scale=scale)
                sums += by_task
                self.accelerator.backward(non_finite.carrying_faults(part, sums) if last else part)
        return sums

    def _as_many_as_others(self, micro_batches: list[MicroBatch]) -> list[MicroBatch]:
        """The passes of this rank, and as many without labels as it takes to run as many as the
        busiest rank: parameters are gathered, and gradients exchanged, in every pass.
        """
        missing = largest(len(micro_batches), self.args) - len(micro_batches)
        idle = idle_micro_batch(self.steps.corpus[0], self.steps.layout)
        return [*micro_batches, *[idle] * missing]

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Count the step, and stop before the optimizer updates weights if the gradient is not
        finite.
        """
        norm = whole(super()._clip_grad_norm(model))  # type: ignore[no-untyped-call]
        assert self._taken is not None
        # The only device synchronisation of a step; afterwards the norm can be read at no cost.
        self._count(*self._taken)
        if not math.isfinite(norm):
            model.zero_grad()
            loss_module, number, precision = (
                self.loss_module,
                self.state.global_step,
                self.accelerator.autocast,
            )
            raise non_finite.explained(
                loss_module, self.steps, number, precision, self.tokenizer, self.run
            )
        return norm

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: Trainer's estimate does not support a list of micro-batches."""
        return 0

    def _count(self, step: Step, sums: Tensor) -> None:
        labels = [
            np.bincount(batch.tasks, minlength=len(self.task_names))
            for batch in step["micro_batches"]
        ]
        counts = torch.from_numpy(np.sum(labels, axis=0))
        self._task_losses += torch.stack([sums.cpu().double(), counts.double()], dim=1)
        self._throughput.add(step)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """All weights but biases, norms and, if `decay_embeddings` is false, token embeddings."""
        names = super().get_decay_parameter_names(model)
        if self.decay_embeddings:
            return names
        modules = (
            self.language_model.get_input_embeddings(),
            self.language_model.get_output_embeddings(),
        )
        rows = {id(weight) for module in modules for weight in module.parameters()}
        return [
            name
            for name, weight in model.named_parameters()
            if name in names and id(weight) not in rows
        ]

    # --- evaluation and logs ---

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Mean loss per label of every validation task, and ranking metrics when they are due."""
        began = time.monotonic()
        self.language_model.eval()
        metrics = {f"eval_{task.name}_loss": self._validation_loss(task) for task in self.valid}
        if self.ranking and self.ranking.due(self.state):
            metrics |= self.ranking.measure(
                self.language_model, self.accelerator.autocast, errors=self.errors
            )
        non_finite.refuse_validation(metrics, self.state.global_step)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._throughput.evaluated += time.monotonic() - began
        return metrics

    def _validation_loss(self, task: EncodedTask) -> float:
        """Mean loss per label, over all ranks."""
        # Validation uses the plain loss, which needs no SID prefixes.
        corpus, layout = Corpus([task]), replace(self.steps.layout, prefixes=None)
        everything = np.arange(len(corpus))
        share = shared_out(
            everything, corpus.lengths, self.args.process_index, self.args.world_size
        )
        total = torch.zeros(2, dtype=torch.float64)
        with lockstep(self.language_model):
            for start in range(0, len(share), EVALUATION_EXAMPLES):
                examples = [corpus[int(i)] for i in share[start : start + EVALUATION_EXAMPLES]]
                for micro_batch in layout.micro_batches(examples):
                    loss = self._forward(micro_batch).sum().item()
                    self.control = self.callback_handler.on_prediction_step(
                        self.args, self.state, self.control
                    )
                    total += torch.tensor([loss, len(micro_batch.labels)], dtype=torch.float64)
        loss, labels = self._summed(total).tolist()
        return float(loss / labels)

    def _forward(self, micro_batch: MicroBatch) -> Tensor:
        # Not the DDP wrapper: ranks may have unequal numbers of forward passes here.
        model = self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=True)
        with self.accelerator.autocast():
            _, by_task = model(**micro_batch.to(self.args.device))
        return by_task  # type: ignore[no-any-return]

    def _summed(self, values: Tensor) -> Tensor:
        """Sum over all ranks (all-reduce)."""
        if self.args.world_size > 1:
            values = values.to(self.args.device)
            dist.all_reduce(values)
        return values.cpu()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add loss per task, throughput, the share of time spent waiting for data, and memory to
        training entries.
        """
        if "loss" in logs:
            counted = self._throughput
            here = torch.tensor([[counted.tokens, counted.places]], dtype=torch.float64)
            *losses, tokens = self._summed(torch.cat([self._task_losses, here])).tolist()
            for name, (loss, labels) in zip(self.task_names, losses, strict=True):
                if labels:
                    logs[f"{name}_loss"] = loss / labels
            logs |= counted.entry(*tokens)
            logs["memory_gib"] = peak_gib(self.args.device)
            self._task_losses.zero_()
            counted.restart()
        super().log(logs, start_time)
