"""Training with an average of weights: training is the same, what is evaluated and saved is the
average.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.running import losses, metrics, run
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sidtune.model.checkpoint_files import load_weights, plain_state_dict
from sidtune.training.averaging import TRAINED_WEIGHTS
from sidtune.training.trainer import StepTrainer

DECAY, EVERY = 0.4, 4
Weights = dict[str, Tensor]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Weights], list[Weights]]:
    """The whole model's weights as each training step finds them, and as each
    evaluation has them.
    """
    before_steps: list[Weights] = []
    evaluated: list[Weights] = []

    def watch(name: str, kept: list[Weights]) -> None:
        ordinary: Callable[..., Any] = getattr(StepTrainer, name)

        def watched(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
            kept.append(
                {key: value.clone() for key, value in plain_state_dict(self.language_model).items()}
            )
            return ordinary(self, *args, **kwargs)

        monkeypatch.setattr(StepTrainer, name, watched)

    watch("training_step", before_steps)
    watch("_validation_loss", evaluated)
    return before_steps, evaluated


def slow_averages(weights: list[Weights]) -> list[Weights]:
    """The average after each step, in float64, from the weights before the first step and after
    each.
    """
    averages = [{name: value.double() for name, value in weights[0].items()}]
    for step, now in enumerate(weights[1:], start=1):
        decay = min(DECAY, (1 + step) / (10 + step))
        averages.append(
            {
                name: decay * value + (1 - decay) * now[name].double()
                for name, value in averages[-1].items()
            }
        )
    return averages


@pytest.mark.parametrize("tuning", ["full", "frozen"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_training_is_the_same_and_the_average_is_evaluated_and_saved(
    tmp_path: Path, seen: tuple[list[Weights], list[Weights]], tuning: str, tied: bool
) -> None:
    before_steps, evaluated = seen
    shared: dict[str, Any] = {
        "model": {"base": str(make_base(tmp_path / "base", tied=tied)), "tuning": tuning},
        "eval": {"every": EVERY, "patience": None, "save_total_limit": 99},
        "tasks": {"sid_next": None},
    }
    steps = {"epochs": 5, "batch_size": 16, "learning_rate": 0.01, "warmup": 2}
    plain = tiny_config(tmp_path, output_dir=str(tmp_path / "plain"), training=steps, **shared)
    run(plain)
    expected = [*before_steps]
    before_steps.clear()
    evaluated.clear()
    averaging = {**steps, "ema": DECAY}
    config = tiny_config(
        tmp_path, output_dir=str(tmp_path / "averaged"), training=averaging, **shared
    )
    result = run(config)

    assert len(before_steps) == len(expected) == result.steps
    for left, right in zip(before_steps, expected, strict=True):
        assert all(torch.equal(left[name], value) for name, value in right.items())
    assert losses(config) == losses(plain)
    assert metrics(config) != metrics(plain), "another model was evaluated"

    averages = slow_averages(before_steps)
    # What is evaluated last has seen a step more than the weights that were noted.
    numbers = [*range(0, result.steps, EVERY)]
    assert len(numbers) == len(evaluated) - 1 > 2
    for number, weights in zip(numbers, evaluated, strict=False):
        same(weights, averages[number])
    for number in numbers[1:]:
        checkpoint = config.output_dir / f"checkpoint-{number}"
        same(load_weights(checkpoint), averages[number])
        trained = safetensors.torch.load_file(checkpoint / TRAINED_WEIGHTS)
        if tuning == "full":
            assert trained.keys() == averages[0].keys()
            assert all(
                torch.equal(value, before_steps[number][name]) for name, value in trained.items()
            )
    best = config.output_dir / f"checkpoint-{result.best_step}"
    final = load_weights(config.output_dir / "final_checkpoint")
    same(final, load_weights(best))
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(best)
    same(plain_state_dict(model), final)


def same(left: Weights, right: Weights) -> None:
    for name, value in right.items():
        torch.testing.assert_close(left[name].double(), value.double(), rtol=1e-5, atol=1e-7)
