"""The callbacks of a run as configured, and how to close the bars and logs that they open."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from sidtune.config.evaluation import METRIC_DEPTH
from sidtune.encoding.corpus import EncodedTask
from sidtune.tasks.config import Config
from sidtune.training.callbacks import ConsoleTable, LastStepEvaluation, MetricsFile
from sidtune.training.display.live import LiveView
from sidtune.training.guards.watch import LossWatch
from sidtune.training.trainer import StepTrainer


def callbacks(config: Config, valid: list[EncodedTask]) -> list[TrainerCallback]:
    """The callbacks of a run; the one that evaluates the last step comes before logs and early
    stopping.
    """
    watching: list[TrainerCallback] = [
        LastStepEvaluation(),
        MetricsFile(config.output_dir),
        LossWatch(),
        ConsoleTable([task.name for task in valid], _shown_metrics(config)),
        LiveView(),
    ]
    if config.logging.tensorboard:
        board = TensorBoardCallback()
        board.logging_dir = board.logging_dir or str(config.output_dir / "tensorboard")
        watching.append(board)
    if config.eval.patience:
        watching.append(EarlyStoppingCallback(config.eval.patience))
    return watching


@contextlib.contextmanager
def closing_bars(trainer: StepTrainer) -> Iterator[None]:
    """Remove the live display however training ends."""
    try:
        yield
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, LiveView):
                callback.stop()


def close_logs(config: Config) -> None:
    """End the W&B run: the next stage counts its steps from 0 again, in a run of its own."""
    if config.logging.wandb_project:
        importlib.import_module("wandb").finish()


def _shown_metrics(config: Config) -> list[str]:
    shown = config.eval.ranking.every and config.eval.ranking.beams >= METRIC_DEPTH
    return [f"hr@{METRIC_DEPTH}", f"ndcg@{METRIC_DEPTH}"] if shown else []
