"""Which devices a run takes, and what it needs installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_data import tiny_config
from transformers import TrainingArguments

from sidtune.base.errors import UserError
from sidtune.distributed import launch
from sidtune.training import arguments
from sidtune.training.arguments import training_arguments
from sidtune.training.train import train


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that so many GPUs are visible."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    launch._say_idle.cache_clear()
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return pretend


def test_one_process_uses_one_gpu_and_says_so_once(
    gpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Also where CUDA is in use already, and CUDA_VISIBLE_DEVICES is not read again."""

    class OfThree(TrainingArguments):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 3

    gpus(3)
    for _ in range(2):
        launch.warn_of_idle_gpus()
    monkeypatch.setattr(arguments, "TrainingArguments", OfThree)
    assert training_arguments(tiny_config(tmp_path)).n_gpu == 1
    assert capsys.readouterr().err.count("--processes 3 uses all of them") == 1


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_said_where_no_gpu_is_idle(gpus: Any, count: int, capsys: Any) -> None:
    gpus(count)
    launch.warn_of_idle_gpus()
    assert not capsys.readouterr().err


def test_a_launched_process_leaves_gpus_to_the_others(
    gpus: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    gpus(3)
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    launch.warn_of_idle_gpus()
    assert not capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(gpus: Any) -> None:
    gpus(2)
    with pytest.raises(UserError, match="--processes 4, but only 2 GPUs are visible"):
        launch.launch(4, [])


def test_bf16_without_hardware_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match="precision is bf16, which this GPU does not support"):
        training_arguments(tiny_config(tmp_path, training={"precision": "bf16"}))


@pytest.mark.parametrize(("warmup", "steps"), [(4, 4), (0.5, 10)])
def test_the_schedule_by_hand(tmp_path: Path, warmup: float, steps: int) -> None:
    """Linear to the peak, then half a cosine down to the floor."""
    import json
    import math

    training = {
        "max_steps": 20,
        "batch_size": 16,
        "learning_rate": 0.01,
        "warmup": warmup,
        "min_lr_ratio": 0.2,
    }
    config = tiny_config(tmp_path, training=training, eval={"every": 20})
    train(config)
    lines = (config.output_dir / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines if "learning_rate" in line]
    for step, rate in enumerate(rates):
        if step < steps:
            expected = 0.01 * step / steps
        else:
            half = 0.5 * (1 + math.cos(math.pi * (step - steps) / (20 - steps)))
            expected = 0.01 * (0.2 + 0.8 * half)
        assert rate == pytest.approx(expected), step
