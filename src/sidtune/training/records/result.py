"""What came out of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerState

from sidtune.tasks.config import Config


@dataclass(frozen=True)
class Result:
    """The result of a finished run.

    Args:
        folder: the trained model, an ordinary Hugging Face folder.
        steps: number of optimizer updates.
        best_step: step of the saved model.
        metric: metric by which the saved model was selected.
        task: the evaluation task.
        first_loss, best_loss: its validation loss, in nats per label, before training and of the
            saved model.
        seconds: duration of training and evaluation.
    """

    folder: Path
    steps: int
    best_step: int
    metric: str
    task: str
    first_loss: float
    best_loss: float
    seconds: float

    @property
    def text(self) -> str:
        """A one-line summary."""
        return f"{self.outcome}. Model: {self.folder}"

    @property
    def outcome(self) -> str:
        """What came out, without a path."""
        return (
            f"{self.steps:,} steps in {self.seconds:.0f} s; best by {self.metric} at step"
            f" {self.best_step:,}: {self.task} validation loss {self.first_loss:.4f} →"
            f" {self.best_loss:.4f}"
        )


def result_of(state: TrainerState, config: Config, seconds: float) -> Result:
    """The result of a run whose history holds its validation losses, from before the first step
    on.
    """
    name = f"eval_{config.evaluation_task}_loss"
    losses = {entry["step"]: entry[name] for entry in state.log_history if name in entry}
    first, last = min(losses), max(losses)
    best = state.best_global_step or last
    return Result(
        folder=config.output_dir,
        steps=state.global_step,
        best_step=int(best),
        metric=config.eval.metric,
        task=config.evaluation_task,
        first_loss=losses[first],
        best_loss=losses[best],
        seconds=seconds,
    )
