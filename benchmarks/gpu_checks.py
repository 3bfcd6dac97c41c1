"""Checks on one GPU that print a line each: PASS, FAIL, or SKIP with the reason.

The runs are short and their model is small, so they show that the code paths work on the device,
not how fast they are. `benchmarks/gpu.py` calls this file.

    benchmarks/gpu.sh --checks
"""

from __future__ import annotations

import contextlib
import io
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpu_answers import Answers
from gpu_runs import WHOLE, Runs, near
from sidtune.batching.layouts import LayoutName
from sidtune.config.model import TuningName
from sidtune.files.weight_files import load_weights
from sidtune.model.optimizer.moments import moments_fault
from sidtune.model.tuning.quantised import Kind, kernel_fault
from sidtune.training import train as training_module
from sidtune.training.guards import memory
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.trainer import StepTrainer

# What a check returns, if it cannot be made here.
Skipped = str | None
Check = Callable[[], Skipped]
# Tokens of a pass that fit where memory is short; a step of these runs has about 420 of them.
FITTING = 300
# Bytes that are free on a made-up GPU: not enough for the most tokens that a pass may have.
ROOM = 64 * 2**20
# More than any GPU has.
TOO_MUCH = 2**50


def run_checks(shop: dict[str, str], folder: Path) -> dict[str, str]:
    """Make all checks, print a line for each, and return the outcomes by name.

    Args:
        shop: data files, by configuration key.
        folder: the runs go here.
    """
    runs = Runs(shop, folder)
    training, answers = Training(runs), Answers(runs)
    checks: dict[str, Check] = {
        **training.checks(),
        "beam search in float32 equals the CPU's": answers.on_both,
        "beam search over shared prompts equals that without sharing": answers.shared,
        "beam search in bf16": answers.in_bf16,
        "evaluate without a ranker equals the CPU's": answers.evaluated,
        "rl, float32": partial(answers.reinforced, "fp32"),
        "rl, bf16": partial(answers.reinforced, "bf16"),
    }
    return {name: outcome(name, check) for name, check in checks.items()}


class Training:
    """The checks of training."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def checks(self) -> dict[str, Check]:
        """By name."""
        sharded = {"distributed": "fsdp2"}
        tunings: tuple[TuningName, ...] = ("full", "lora", "frozen")
        return {
            "full, float32": partial(self.learns, **WHOLE),
            "full, bf16": partial(self.learns, name="full-bf16"),
            "lora, bf16": partial(self.learns, name="lora", model={"tuning": "lora"}),
            "lora, nf4": partial(self.quantised, "nf4"),
            "lora, int8": partial(self.quantised, "int8"),
            **{
                f"padded, bucketed and tree have equal losses, {name}": partial(self.layouts, name)
                for name in tunings
            },
            "max_tokens: auto": self.measured,
            "out of memory: smaller passes, tree": partial(self.retried, "tree"),
            "out of memory: smaller passes, bucketed": partial(self.retried, "bucketed"),
            "a killed run resumes to the bit": partial(self.resumed, WHOLE),
            "optimizer state in bf16": partial(
                self.learns, name="state-bf16", optimizer_state="bf16"
            ),
            "optimizer state in 8bit": partial(self.eight_bits, name="state-8bit"),
            "optimizer state offloaded equals that on the GPU to the bit": self.offloaded,
            "optimizer state in 8bit, offloaded, fsdp2 on one rank": partial(
                self.eight_bits, name="state-sharded", offload_optimizer=True, **sharded
            ),
            "fsdp2 on one rank equals one process": self.sharded,
            "fsdp2 on one rank, lora, bf16": partial(
                self.learns,
                name="sharded-lora",
                model={"tuning": "lora"},
                gradient_checkpointing=True,
                **sharded,
            ),
            "fsdp2 on one rank resumes to the bit": partial(self.resumed, SHARDED),
        }

    def learns(self, precision: str = "bf16", **settings: Any) -> Skipped:
        """A run ends, and its loss falls."""
        losses = self.runs.losses(precision=precision, **settings)
        assert losses[-1] < losses[0], losses
        return None

    def quantised(self, kind: Kind) -> Skipped:
        """A run over quantised weights, where their kernels work."""
        if fault := kernel_fault(kind):
            return fault.message
        return self.learns(name=f"lora-{kind}", model={"tuning": "lora", "quantize": kind})

    def eight_bits(self, **settings: Any) -> Skipped:
        """A run whose optimizer's state has eight bits, where bitsandbytes' kernels work."""
        if fault := moments_fault("8bit"):
            return fault.message
        return self.learns(optimizer_state="8bit", **settings)

    def layouts(self, tuning: TuningName) -> Skipped:
        """The same steps have the same losses in every layout."""
        kinds: tuple[LayoutName, ...] = ("padded", "bucketed", "tree")
        losses = {
            kind: self.runs.losses(
                name=f"{tuning}-{kind}",
                precision="fp32",
                model={"tuning": tuning},
                layout=kind,
                group_by="example",
            )
            for kind in kinds
        }
        assert losses["padded"][-1] < losses["padded"][0], losses
        assert all(each == near(losses["padded"]) for each in losses.values()), losses
        return None

    def measured(self) -> Skipped:
        """On a small GPU, a pass of as many tokens as were measured to fit does fit."""
        limits, held, filled = list[int](), list[int](), list[tuple[int, int]]()
        on_gpu = self.runs.device.type == "cuda"

        def small(device: Any = None) -> tuple[int, int]:
            held.append(torch.cuda.memory_allocated(device))
            return ROOM, ROOM

        def noted(trainer: StepTrainer, training: Any) -> None:
            memory.fit_max_tokens(trainer, training)
            limits.append(trainer.steps.layout.limit)
            if on_gpu:
                filled.append(memory._measure(trainer, limits[0]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "mem_get_info", small)
            patch.setattr(torch.cuda, "memory_reserved", torch.cuda.memory_allocated)
            patch.setattr(training_module, "fit_max_tokens", noted)
            losses = self.runs.losses(**WHOLE | {"name": "auto"}, max_tokens="auto")
        assert losses == near(self.runs.losses(**WHOLE))
        if not on_gpu:
            return "memory is measured on GPUs alone"
        (tokens, peak), limit = filled[0], limits[0]
        assert limit < memory.MOST_TOKENS, f"{limit} tokens: more than fit in {ROOM} bytes"
        assert limit / 2 < tokens <= limit, (tokens, limit)
        assert peak <= held[0] + ROOM, f"{tokens} tokens took {peak} bytes, {held[0]} + {ROOM} fit"
        return None

    def retried(self, layout: LayoutName) -> Skipped:
        """A step that does not fit runs again in smaller passes, and the losses stay the same."""
        ordinary, failed = LabelLoss.forward, list[int]()

        def limited(loss: LabelLoss, input_ids: Tensor, *args: Any, **given: Any) -> Any:
            answer: Any = ordinary(loss, input_ids, *args, **given)
            if loss.model.training and input_ids.numel() > FITTING:
                # Half of the work is done: gradients of the pass are there.
                answer[0].backward()
                failed.append(input_ids.numel())
                run_out_of_memory(input_ids.device)
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LabelLoss, "forward", limited)
            patch.setattr(memory, "measures_memory", lambda *_: False)
            name = f"little-memory-{layout}"
            losses = self.runs.losses(
                **WHOLE | {"name": name}, layout=layout, max_tokens="auto", workers=1
            )
        assert failed, "no pass was too large"
        assert losses == near(self.runs.losses(**WHOLE)), (losses, self.runs.losses(**WHOLE))
        return None

    def resumed(self, settings: dict[str, Any]) -> Skipped:
        """A run that was killed ends like one that was not, in losses and weights."""
        killed = settings | {"name": f"{settings['name']}-killed"}
        self.runs.kill(**killed)
        left, right = (self.runs.losses(**each) for each in (killed, settings))
        assert left == right, (left, right)
        mine, whole = (load_weights(self.runs.final(**each)) for each in (killed, settings))
        assert mine.keys() == whole.keys()
        assert all(torch.equal(value, whole[name]) for name, value in mine.items())
        return None

    def offloaded(self) -> Skipped:
        """The losses with the optimizer's state in main memory are those without."""
        there = self.runs.losses(**WHOLE | {"name": "offloaded"}, offload_optimizer=True)
        here = self.runs.losses(**WHOLE)
        assert there == here, (here, there)
        return None

    def sharded(self) -> Skipped:
        """The losses of a sharded run are those of an ordinary one."""
        sharded, whole = self.runs.losses(**SHARDED), self.runs.losses(**WHOLE)
        assert sharded == near(whole), (whole, sharded)
        return None


SHARDED: dict[str, Any] = WHOLE | {"name": "sharded", "distributed": "fsdp2"}


def run_out_of_memory(device: torch.device) -> None:
    """Raise PyTorch's error; on a GPU, by its allocator."""
    if device.type == "cuda":
        torch.empty(TOO_MUCH, dtype=torch.uint8, device=device)
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1048576.00 GiB.")


def outcome(name: str, check: Check) -> str:
    """Make a check and print its line, and of one that fails what it said and how it failed."""
    said, began = io.StringIO(), time.monotonic()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            skipped = check()
    except Exception as error:
        print(said.getvalue()[-2000:] + traceback.format_exc(), flush=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        told = f"FAIL {name}: {reason}"
    else:
        told = f"SKIP {name}: {skipped}" if skipped else f"PASS {name}"
    print(f"{told} ({time.monotonic() - began:.1f} s)", flush=True)
    return told.partition(" ")[0]
