"""The callbacks of a run as configured, and how to close the bars that they open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from transformers import EarlyStoppingCallback, TrainerCallback

from sidtune.config.evaluation import METRIC_DEPTH
from sidtune.encoding.corpus import EncodedTask
from sidtune.tasks.config import Config
from sidtune.training.display.callbacks import ConsoleTable, LastStepEvaluation, MetricsFile
from sidtune.training.display.live import LiveView
from sidtune.training.display.time_left import TimeLeft
from sidtune.training.guards.watch import LossWatch
from sidtune.training.records.trackers import trackers
from sidtune.training.trainer import StepTrainer


def callbacks(
    config: Config, valid: list[EncodedTask], shown: Mapping[str, str]
) -> list[TrainerCallback]:
    """The callbacks of a run; the one that evaluates the last step comes before logs and early
    stopping.

    Args:
        shown: entries of the training log that the table on the console has, by title.
    """
    time_left = TimeLeft()
    watching: list[TrainerCallback] = [
        LastStepEvaluation(),
        # It says what begins before the table has a heading.
        time_left,
        MetricsFile(config.output_dir),
        LossWatch(),
        ConsoleTable([task.name for task in valid], _shown_metrics(config), shown),
        LiveView(time_left),
    ]
    watching += trackers(config)
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


def _shown_metrics(config: Config) -> list[str]:
    shown = config.eval.ranking.every and config.eval.ranking.beams >= METRIC_DEPTH
    return [f"hr@{METRIC_DEPTH}", f"ndcg@{METRIC_DEPTH}"] if shown else []
