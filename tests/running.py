"""Running a configuration, and what its run left in `metrics.jsonl`."""

from __future__ import annotations

import json
from typing import Any

from sidtune.config import Config
from sidtune.training.train import Result, train

QUIET = {
    "waiting",
    "examples_per_second",
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
}


def run(config: Config, **options: Any) -> Result:
    result = train(config, **options)
    assert result is not None
    return result


def metrics(config: Config) -> list[dict[str, float]]:
    lines = (config.output_dir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in QUIET} for line in lines if "train_runtime" not in line
    ]


def losses(config: Config) -> list[float]:
    return [entry["loss"] for entry in metrics(config) if "loss" in entry]
