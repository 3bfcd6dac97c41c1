"""Run one contestant of the training benchmark in its own process.

The process builds a trainer and calls `train()`. It then makes one step each time it reads `go`
from standard input, and answers with a report of that step as one line of JSON. `stop` ends it. All
other output of the libraries goes to standard error.

    python benchmarks/contestants.py '{"contestant": "stock", …}'
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)

from sidtune.base.terminal import quiet_libraries
from sidtune.encoding.corpus import Corpus
from sidtune.inputs import Inputs
from sidtune.model.load import load_model
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.training.arguments import training_arguments
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.make_steps import make_plan, make_steps
from sidtune.training.trainer import StepTrainer

Tuning = Literal["full", "frozen"]
# Small enough that a few steps leave the model as random as it was, large enough that a wrong
# update shows.
LEARNING_RATE = 1e-4
# Tokens of a packed row: with 512 TRL is as fast here as with any other length that holds the
# longest example.
PACKED_LENGTH = 512
GIB = 2**20  # in the kibibytes that the kernel counts in
# The plan of the usual loop, and of those of ours that must show the same losses.
PLAIN = {"group_by": "example"}
# Ours, by the keys under `training` that make them; the last is what the configuration's defaults
# give.
OURS: dict[str, dict[str, str]] = {
    "padded": PLAIN | {"layout": "padded"},
    "bucketed": PLAIN | {"layout": "bucketed"},
    "tree": PLAIN | {"layout": "tree"},
    "tree by user": {"layout": "tree", "group_by": "user"},
}
CONTESTANTS = ("stock", "trl", *OURS)
PRECISIONS = {"cpu": "fp32", "cuda": "bf16"}


@dataclass(frozen=True)
class Job:
    """What a process is to do.

    Args:
        contestant: one of `CONTESTANTS`.
        tuning: `full` trains the whole model, `frozen` only the rows of the SID tokens.
        batch: examples per step.
        micro_batch: examples per forward pass, if the contestant uses a fixed number.
        steps: number of steps that will be requested.
        base: folder of the base model.
        data: paths of the files `items`, `index`, `train` and `valid`.
        tasks: tasks of the mixture; empty for the default mixture.
        cache: folder of the encoded examples.
        template: template file; empty for the default templates.
        device: `cpu`, in float32, or `cuda`, in bfloat16 autocast.
    """

    contestant: str
    tuning: Tuning
    batch: int
    micro_batch: int
    steps: int
    base: str
    data: dict[str, str]
    tasks: tuple[str, ...]
    cache: str
    template: str = ""
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class Report:
    """One step: loss in nats per label, `tokens` computed, how many of them are padding, and peak
    memory.

    Memory is the process's resident memory, or the memory allocated on its GPU.
    """

    seconds: float
    loss: float
    tokens: int
    padding: int
    labels: int
    examples: float
    peak_gib: float


class Built(NamedTuple):
    """A trainer, the language model inside, and what counts labels and examples of a batch of its
    loader.
    """

    trainer: Trainer
    model: PreTrainedModel
    count_batch: Callable[[Any], tuple[int, float]]


class Meter(TrainerCallback):
    """Waits before every step until told to go, and reports the step when it is made.

    Args:
        channel: to the parent.
        built: what is watched.
        pad_id: fills rows up, and is in no example.
    """

    def __init__(self, channel: TextIO, built: Built, pad_id: int) -> None:
        self.channel, self.count, self.pad_id = channel, built.count_batch, pad_id
        self._start()
        # The embedding sees every token that is computed, however the trainer comes by its rows.
        built.model.get_input_embeddings().register_forward_pre_hook(self._see_tokens)
        self._step = built.trainer.training_step
        built.trainer.training_step = self._see_batch  # type: ignore[method-assign]
        built.trainer.add_callback(self)

    def on_train_begin(
        self, args: TrainingArguments, state: Any, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell that everything is built."""
        self._say({"ready": True})
        self._wait(control)

    def on_step_end(
        self, args: TrainingArguments, state: Any, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report, and wait for the next step."""
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.began
        counts = (self.tokens, int(self.padding), self.labels, self.examples)
        self._say(asdict(Report(seconds, float(self.loss), *counts, peak_memory(args.device))))
        self._wait(control)

    def _start(self) -> None:
        self.tokens = self.labels = 0
        self.examples = 0.0
        self.padding: torch.Tensor | int = 0
        self.loss: torch.Tensor | float = 0.0
        self.began = time.perf_counter()

    def _wait(self, control: TrainerControl) -> None:
        if sys.stdin.readline().strip() != "go":
            control.should_training_stop = True
        self._start()

    def _say(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), file=self.channel, flush=True)

    def _see_tokens(self, module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        self.tokens += arguments[0].numel()
        # Read when the step is done: a GPU is not waited for in between.
        self.padding = self.padding + (arguments[0] == self.pad_id).sum()

    def _see_batch(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        labels, examples = self.count(inputs)
        self.labels += labels
        self.examples += examples
        loss = self._step(model, inputs, num_items_in_batch)
        self.loss = self.loss + loss.detach()
        return loss


def main() -> None:
    """Build what the argument asks for, and train it step by step."""
    channel = own_channel()
    quiet_libraries()
    given = json.loads(sys.argv[1])
    job = Job(**given | {"tasks": tuple(given["tasks"])})
    inputs = Inputs(config_of(job))
    build = {"stock": build_stock, "trl": build_trl}.get(job.contestant, build_ours)
    built = build(job, inputs)
    Meter(channel, built, int(inputs.vocabulary.tokenizer.pad_token_id))
    built.trainer.train()


def own_channel() -> TextIO:
    """Standard output for reports alone: what libraries print goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def config_of(job: Job) -> Config:
    """The configuration of a job; other contestants than ours take its data, its seed
    and its plan.
    """
    training: dict[str, Any] = {"batch_size": job.batch, "precision": PRECISIONS[job.device]}
    # Steps are prepared inside the measured time.
    training |= {
        "learning_rate": LEARNING_RATE,
        "min_lr_ratio": 1,
        "warmup": 0,
        "max_steps": job.steps,
        "workers": 0,
    }
    training |= OURS.get(job.contestant, PLAIN)
    if training.get("layout") == "padded":
        training["micro_batch_size"] = job.micro_batch
    tree: dict[str, Any] = {
        "output_dir": str(Path(job.cache) / "unused"),
        "model": {"base": job.base, "tuning": job.tuning},
        "data": job.data,
        "encoding": {"cache_dir": job.cache},
        "training": training,
    }
    if job.template:
        tree["template"] = {"file": job.template}
    if job.tasks:
        tree["tasks"] = dict.fromkeys(job.tasks)
    return parse_config(tree, "benchmark")


# --- ours ---


def build_ours(job: Job, inputs: Inputs) -> Built:
    """Our trainer as `train` puts it together, with evaluation and saving off."""
    arguments = training_arguments(inputs.config)
    arguments.eval_strategy = arguments.save_strategy = "no"
    arguments.eval_on_start = arguments.load_best_model_at_end = False
    arguments.max_steps = job.steps
    tasks = inputs.mixture.train()
    model = load_model(inputs.config.model, inputs.vocabulary, inputs.config.seed)
    trainer = StepTrainer(
        model=LabelLoss(model, len(tasks)),
        arguments=arguments,
        steps=make_steps(inputs.config, tasks, model, inputs.vocabulary, arguments),
        tasks=[task.name for task in tasks],
        valid=[],
        tokenizer=inputs.vocabulary.tokenizer,
        identity={},
        save_total_limit=1,
        bundle=lambda: inputs.bundle,
        ranking=None,
        callbacks=[],
    )
    return Built(trainer, model, lambda step: (step["label_count"], step["examples"]))


# --- the others ---


def build_stock(job: Job, inputs: Inputs) -> Built:
    """Transformers' Trainer with its own collator and the model's own loss over full logits."""
    arguments = TrainingArguments(
        **usual_arguments(job),
        per_device_train_batch_size=job.micro_batch,
        gradient_accumulation_steps=job.batch // job.micro_batch,
        train_sampling_strategy="sequential",
    )
    tokenizer = inputs.vocabulary.tokenizer
    examples: Any = [
        {"input_ids": ids, "labels": labels} for ids, labels in plain_examples(job, inputs)
    ]
    model = plain_model(job, inputs)
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True, pad_to_multiple_of=8)
    trainer = Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collator)
    return Built(trainer, model, lambda batch: (shifted_labels(batch), len(batch["input_ids"])))


def build_trl(job: Job, inputs: Inputs) -> Built:
    """TRL's SFTTrainer as its documentation sets it up for speed, as far as that runs on a CPU.

    Packing by best-fit decreasing fills rows without padding; its attention mask keeps the examples
    of a row apart. A row longer than the longest example loses nothing, and one row a forward pass
    is fastest, as several are laid end to end and attention without FlashAttention takes the square
    of that. Gradient checkpointing and bf16 are on by default and slow a CPU down. What the
    documentation recommends besides needs a GPU: attention kernels (FlashAttention) and Liger's
    kernels.

    A packed row holds few long examples or many short ones, so the number of examples in a step
    depends on the draw. The examples per second are therefore computed from the step's tokens and
    the average tokens per example.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"input_ids": ids, "completion_mask": [int(label >= 0) for label in labels]}
        for ids, labels in plain_examples(job, inputs)
    ]
    tokens = sum(len(row["input_ids"]) for row in rows)
    arguments = SFTConfig(
        **usual_arguments(job),
        packing=True,
        packing_strategy="bfd",
        max_length=PACKED_LENGTH,
        completion_only_loss=True,
        gradient_checkpointing=False,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=max(1, tokens // (PACKED_LENGTH * job.steps)),
    )
    model = plain_model(job, inputs)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=inputs.vocabulary.tokenizer,
    )
    per_token = len(rows) / tokens
    return Built(
        trainer,
        model,
        lambda batch: (shifted_labels(batch), batch["input_ids"].numel() * per_token),
    )


def usual_arguments(job: Job) -> dict[str, Any]:
    """Of Transformers' own arguments, those that must be as in our runs, and no logging, evaluation
    or saving.
    """
    return {
        "output_dir": str(Path(job.cache) / "unused"),
        "max_steps": job.steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": job.device == "cuda",
        "use_cpu": job.device == "cpu",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def plain_examples(job: Job, inputs: Inputs) -> list[tuple[list[int], list[int]]]:
    """Token ids, and labels with -100 between them, of our plan's examples in its order."""
    corpus = Corpus(inputs.mixture.train())
    plan = make_plan(inputs.config, corpus)
    chosen = np.concatenate([plan.step(number) for number in range(job.steps)])
    examples = []
    for index in chosen.tolist():
        ids, spans, _ = corpus[index]
        labels = np.full(len(ids), -100)
        for start, end in spans.tolist():
            labels[start:end] = ids[start:end]
        examples.append((ids.tolist(), labels.tolist()))
    return examples


def plain_model(job: Job, inputs: Inputs) -> PreTrainedModel:
    """The model that ours starts from, frozen the way it is done by hand."""
    whole = inputs.config.model.model_copy(update={"tuning": "full"})
    model = load_model(whole, inputs.vocabulary, inputs.config.seed)
    if job.tuning == "frozen":
        freeze_by_hand(model, torch.from_numpy(inputs.vocabulary.sid_ids))
    return model


def freeze_by_hand(model: PreTrainedModel, sid_ids: torch.Tensor) -> None:
    """Train the tied embedding matrix alone, and take the gradient off all rows but those of the
    SID tokens.
    """
    model.requires_grad_(False)
    weight: Any = model.get_input_embeddings().weight
    weight.requires_grad_(True)
    keep = torch.zeros(len(weight), 1)
    keep[sid_ids] = 1
    weight.register_hook(lambda gradient: gradient * keep.to(gradient.device))


def shifted_labels(batch: Any) -> int:
    """Labels of a batch, `(batch, length)` with -100 elsewhere; the first token of a row is
    predicted from nothing.
    """
    return int((batch["labels"][:, 1:] >= 0).sum())


def peak_memory(device: torch.device) -> float:
    """GiB of the GPU, or resident: `getrusage` would start from what the parent held when it
    forked.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB / 1024
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / GIB


if __name__ == "__main__":
    main()
