"""Checks of training on one GPU that print a line each: PASS, FAIL, or SKIP with the reason.

The runs are short and their model is small, so they show that the code paths work on the device,
not how fast they are. `benchmarks/gpu.py` calls this file; by itself it runs the checks alone.

    benchmarks/gpu.sh --checks
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidtune.config.model import TuningName
from sidtune.model.optimizer.moments import moments_fault
from sidtune.model.tuning.quantised import Kind, kernel_fault
from sidtune.tasks.config_file import parse_config
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer

STEPS, EVERY, KILLED = 8, 2, 5
# Of losses near 7 in float32: other kernels add in another order.
TOLERANCE = 2e-3
# What a check returns, if it cannot be made here.
Skipped = str | None


class Killed(Exception):
    """Ends a run as a crash would."""


class Checks:
    """The checks, over one shop and one base.

    Args:
        shop: data files, by configuration key.
        base: a folder with weights and a tokenizer.
        folder: the runs go here.
    """

    def __init__(self, shop: dict[str, str], base: Path, folder: Path) -> None:
        self.shop, self.base, self.folder = shop, base, folder

    def run(self) -> dict[str, str]:
        """Make all checks, print a line for each, and return the outcomes by name."""
        checks: dict[str, Callable[[], Skipped]] = {
            "full, float32": lambda: self.learns("full"),
            "full, bf16": lambda: self.learns("full", precision="bf16"),
            "lora": lambda: self.learns("lora", precision="bf16"),
            "lora, nf4": lambda: self.quantised("nf4"),
            "lora, int8": lambda: self.quantised("int8"),
            "optimizer state in bf16": lambda: self.learns("full", optimizer_state="bf16"),
            "optimizer state in 8bit": self.eight_bits,
            "optimizer state offloaded equals that on the GPU to the bit": self.offloaded,
            "optimizer state in 8bit, offloaded, fsdp2 on one rank": lambda: self.eight_bits(
                offload_optimizer=True, distributed="fsdp2"
            ),
            "fsdp2 on one rank equals one process": self.sharded_equals_whole,
            "fsdp2 on one rank, lora, bf16": self.sharded_lora,
            "fsdp2 on one rank resumes to the bit": self.sharded_resumes,
        }
        return {name: outcome(name, check) for name, check in checks.items()}

    def learns(self, tuning: TuningName, **training: Any) -> Skipped:
        """A run ends, and its loss falls."""
        name = "-".join([tuning, *(f"{key}-{value}" for key, value in training.items())])
        losses = self.losses(name, tuning, **training)
        assert losses[-1] < losses[0], losses
        return None

    def quantised(self, kind: Kind) -> Skipped:
        """A run over quantised weights, where their kernels work."""
        if fault := kernel_fault(kind):
            return fault.message
        losses = self.losses(f"lora-{kind}", "lora", kind, precision="bf16")
        assert losses[-1] < losses[0], losses
        return None

    def eight_bits(self, **training: Any) -> Skipped:
        """A run whose optimizer's state has eight bits, where bitsandbytes' kernels work."""
        if fault := moments_fault("8bit"):
            return fault.message
        return self.learns("full", optimizer_state="8bit", **training)

    def offloaded(self) -> Skipped:
        """The losses with the optimizer's state in main memory are those without."""
        here = self.losses("state-here", "full", precision="fp32")
        there = self.losses("state-there", "full", precision="fp32", offload_optimizer=True)
        assert there == here, (here, there)
        return None

    def sharded_equals_whole(self) -> Skipped:
        """The losses of a sharded run are those of an ordinary one."""
        whole = self.losses("whole", "full", precision="fp32")
        sharded = self.losses("sharded", "full", precision="fp32", distributed="fsdp2")
        assert sharded == pytest.approx(whole, abs=TOLERANCE), (whole, sharded)
        return None

    def sharded_lora(self) -> Skipped:
        """A sharded run with adapters and layers that are computed twice."""
        options: dict[str, Any] = {"distributed": "fsdp2", "gradient_checkpointing": True}
        losses = self.losses("sharded-lora", "lora", precision="bf16", **options)
        assert losses[-1] < losses[0], losses
        return None

    def sharded_resumes(self) -> Skipped:
        """A sharded run that was killed ends like one that was not."""
        options: dict[str, Any] = {"precision": "fp32", "distributed": "fsdp2"}
        whole = self.losses("undisturbed", "full", **options)
        with pytest.MonkeyPatch.context() as patch:
            ordinary = StepTrainer.training_step

            def dying(trainer: StepTrainer, *args: Any) -> Any:
                if trainer.state.global_step == KILLED:
                    raise Killed
                return ordinary(trainer, *args)

            patch.setattr(StepTrainer, "training_step", dying)
            with pytest.raises(Killed):
                self.losses("killed", "full", **options)
        resumed = self.losses("killed", "full", **options)
        assert resumed == whole, (whole, resumed)
        return None

    def losses(
        self, name: str, tuning: TuningName, quantize: Kind | None = None, **training: Any
    ) -> list[float]:
        """Train, and return the loss of every step."""
        tree = {
            "output_dir": str(self.folder / name),
            "model": {"base": str(self.base), "tuning": tuning, "quantize": quantize},
            "data": self.shop,
            "tasks": {"sid_next": {}},
            "encoding": {"cache_dir": str(self.folder / "cache")},
            "training": {
                "max_steps": STEPS,
                "batch_size": 16,
                "learning_rate": 1e-2,
                "warmup": 2,
                "max_tokens": 2048,
                **training,
            },
            "eval": {"every": EVERY, "max_rows": 32},
            "logging": {"every": 1},
            "rank": {"fit": "never"},
        }
        assert train(parse_config(tree, "check")) is not None
        lines = (self.folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found: dict[int, float] = {}
        for entry in map(json.loads, lines):
            if "loss" in entry:
                found[entry["step"]] = entry["loss"]
        return [found[step] for step in sorted(found)]


def outcome(name: str, check: Callable[[], Skipped]) -> str:
    """Make a check and print its line."""
    try:
        skipped = check()
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        told = f"FAIL {name}: {reason}"
    else:
        told = f"SKIP {name}: {skipped}" if skipped else f"PASS {name}"
    print(told, flush=True)
    return told.partition(" ")[0]
