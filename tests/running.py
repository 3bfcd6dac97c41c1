"""Running a configuration, to its end or to its death, and what its run left in `metrics.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sidtune.files.weight_files import load_weights
from sidtune.runs.checkpoints import FINAL
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.training.records.result import Result
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer

QUIET = {
    "waiting",
    "examples_per_second",
    "tokens_per_second",
    "useful_tokens",
    "memory_gib",
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
}


def run(config: Config, **options: Any) -> Result:
    result = train(config, **options)
    assert result is not None
    return result


class Crash(Exception):
    """What a killed run looks like from inside."""


def dies(config: Config, step: int, folder: Path | None = None, resume: str = "auto") -> None:
    """Train until so many steps are made: there the run dies, or the stage of it that writes into a
    folder.
    """
    ordinary, place = StepTrainer.training_step, folder or config.output_dir

    def dying(self: StepTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.run == place and self.state.global_step == step:
            raise Crash
        return ordinary(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepTrainer, "training_step", dying)
        with pytest.raises(Crash):
            train(config, resume=resume)


def metrics(config: Config) -> list[dict[str, float]]:
    lines = (config.output_dir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in QUIET}
        for line in lines
        if "train_runtime" not in line
    ]


def losses(config: Config) -> list[float]:
    return [entry["loss"] for entry in metrics(config) if "loss" in entry]


def same_result(tree: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert that two runs logged the same and left the same weights, to the bit."""
    left, right = (parse_config(each, "test") for each in (tree, other))
    assert metrics(left) == metrics(right)
    mine, theirs = (load_weights(config.output_dir / FINAL) for config in (left, right))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in mine.items())
