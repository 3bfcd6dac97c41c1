"""An exponential moving average of the trained weights, for everything but training itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sidtune.model.checkpoint_files import refusing_damage

TRAINED_WEIGHTS = "trained_weights.safetensors"


class WeightAverage(TrainerCallback):
    """Averages the trained parameters after every step, in their own float32.

    After step n the average moves towards the weights by `1 - d`, with `d = min(decay, (1 + n) /
    (10 + n))`. This is the ramp of TensorFlow's `ExponentialMovingAverage(num_updates=n)`: without
    it the start is held on to for long.

    Args:
        model: on its device; the average starts at its weights.
        decay: between 0 and 1.
    """

    def __init__(self, model: PreTrainedModel, decay: float) -> None:
        self.decay = decay
        self.trained = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self.averages = [weight.detach().clone() for weight in self.trained.values()]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer, with `state.global_step` already counting the step."""
        self.update(state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer after it loaded the best model, which is an average; without one the
        last is left.
        """
        if state.best_model_checkpoint is None:
            self._swap()

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
        average(self.averages, list(self.trained.values()), step)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averages, and afterwards its trained weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def save(self, folder: Path) -> None:
        """Put the trained weights beside the model of a checkpoint, which has the averages."""
        weights = {name: weight.detach().contiguous() for name, weight in self.trained.items()}
        safetensors.torch.save_file(weights, folder / TRAINED_WEIGHTS)

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        """Take the averages from the model, which was loaded from a checkpoint, and give it the
        trained weights.

        Raises:
            UserError: where these are missing or damaged.
        """
        with refusing_damage(folder):
            saved = safetensors.torch.load_file(folder / TRAINED_WEIGHTS)
            for average, (name, weight) in zip(self.averages, self.trained.items(), strict=True):
                average.copy_(weight)
                weight.copy_(saved[name])

    @torch.no_grad()
    def _swap(self) -> None:
        """In place, so that whatever holds on to a parameter's memory sees the same weights as the
        model.
        """
        for average, weight in zip(self.averages, self.trained.values(), strict=True):
            trained = weight.clone()
            weight.copy_(average)
            average.copy_(trained)
