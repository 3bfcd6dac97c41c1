"""The short runs that `gpu_checks.py` and `gpu_answers.py` compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sidtune.data.catalogue import read_texts
from sidtune.model.new_base import create_base
from sidtune.runs.checkpoints import FINAL
from sidtune.runs.files import METRICS
from sidtune.tasks.config_file import parse_config
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer

STEPS, EVALUATIONS, KILLED = 8, 4, 5
# The run in float32 that nothing disturbs and that most others are compared with.
WHOLE: dict[str, Any] = {"name": "whole", "precision": "fp32"}
# Of losses near 7 in float32: other kernels add in another order.
TOLERANCE = 2e-3


class Killed(Exception):
    """Ends a run as a crash would."""


class Runs:
    """Runs over one shop, each in the folder of its name.

    Args:
        shop: data files, by configuration key.
        folder: the runs and their bases go here.
    """

    def __init__(self, shop: dict[str, str], folder: Path) -> None:
        self.shop, self.folder = shop, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def tree(
        self, name: str, precision: str, model: dict[str, Any] | None = None, **training: Any
    ) -> dict[str, Any]:
        """A configuration.

        Args:
            precision: of the passes, and of the base.
            model: keys of that section besides the base.
            training: keys of that section that differ from those of the other runs.
        """
        every = training.get("max_steps", STEPS) // EVALUATIONS
        padded = training.get("layout") == "padded"
        size = {"micro_batch_size": 4} if padded else {"max_tokens": 2048}
        return {
            "output_dir": str(self.folder / name),
            "model": {"base": str(self.base(precision)), **(model or {})},
            "data": self.shop,
            "tasks": {"sid_next": {}},
            "encoding": {"cache_dir": str(self.folder / "cache")},
            "training": {
                "max_steps": STEPS,
                "batch_size": 16,
                "learning_rate": 1e-2,
                "warmup": 2,
                **size,
                "precision": precision,
                **training,
            },
            "eval": {"every": every, "max_rows": 32},
            "logging": {"every": 1},
            "rank": {"fit": "never"},
        }

    def base(self, precision: str) -> Path:
        """A base with random weights; those for bf16 are bfloat16, as those of most bases are."""
        folder = self.folder / f"base-{precision}"
        if not folder.exists():
            create_base(folder, read_texts(Path(self.shop["items"])), 64, 2, vocab=2000)
            if precision == "bf16":
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
                model.save_pretrained(folder)
        return folder

    def final(self, **settings: Any) -> Path:
        """The model of a run, trained unless it has been; settings as `tree` takes them."""
        folder = self.folder / str(settings["name"]) / FINAL
        if not folder.exists():
            # In float32, runs are compared with each other, some of them to the bit.
            with repeatable() if settings["precision"] == "fp32" else nullcontext():
                assert train(parse_config(self.tree(**settings), "check")) is not None
        return folder

    def losses(self, **settings: Any) -> list[float]:
        """The training loss of every step of a run."""
        self.final(**settings)
        found = {entry["step"]: entry["loss"] for entry in self.logged(settings["name"], "loss")}
        return [found[step] for step in sorted(found)]

    def logged(self, name: str, key: str) -> list[dict[str, Any]]:
        """The entries of a run's log that have a key."""
        lines = (self.folder / name / METRICS).read_text(encoding="utf-8").splitlines()
        return [entry for entry in map(json.loads, lines) if key in entry]

    def kill(self, **settings: Any) -> None:
        """Let a run die before it has made all its steps, and after its second checkpoint."""
        ordinary = StepTrainer.training_step

        def dying(trainer: StepTrainer, *args: Any) -> Any:
            if trainer.state.global_step == KILLED:
                raise Killed
            return ordinary(trainer, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StepTrainer, "training_step", dying)
            with pytest.raises(Killed):
                self.final(**settings)


@contextmanager
def repeatable() -> Iterator[None]:
    """The same bits every time: on a GPU, some kernels otherwise add in the order in which their
    threads end.
    """
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


near = partial(pytest.approx, abs=TOLERANCE)
