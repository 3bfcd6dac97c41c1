"""Trackers of experiments beside `metrics.jsonl`, through Transformers' own integrations."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

from sidtune.base.errors import OneProcessError, UserError
from sidtune.config.logging import PROJECT, TrackerName
from sidtune.tasks.config import Config


@dataclass(frozen=True)
class Tracker:
    """How a tracker is called.

    Args:
        callback: its class among Transformers' integrations.
        project, folder: environment variables of the project, and of the folder it writes into.
        finish: its function that ends a run; empty where the integration does so.
        offline: how to use it without an account or a server.
    """

    callback: str
    project: str = ""
    folder: str = ""
    finish: str = ""
    offline: str = ""


TRACKERS: Mapping[TrackerName, Tracker] = {
    "tensorboard": Tracker("TensorBoardCallback"),
    "wandb": Tracker(
        "WandbCallback", "WANDB_PROJECT", "WANDB_DIR", "finish", "export WANDB_MODE=offline"
    ),
    "trackio": Tracker("TrackioCallback", offline="unset TRACKIO_SPACE_ID"),
    "mlflow": Tracker(
        "MLflowCallback", "MLFLOW_EXPERIMENT_NAME", offline="export MLFLOW_TRACKING_URI=FOLDER"
    ),
    "swanlab": Tracker(
        "SwanLabCallback",
        "SWANLAB_PROJECT",
        "SWANLAB_LOG_DIR",
        "finish",
        "export SWANLAB_MODE=offline",
    ),
}


def require_trackers(config: Config) -> None:
    """Refuse trackers whose package is not installed."""
    for name in config.logging.trackers:
        spec = importlib.util.find_spec(name)
        # A folder of that name without a package in it counts as one; wandb leaves such a folder.
        if spec is None or spec.origin is None:
            raise UserError(
                f"logging.trackers: {name} is not installed", f"Run: pip install 'sidtune[{name}]'"
            )


def trackers(config: Config) -> list[TrainerCallback]:
    """A callback for each tracker of a configuration."""
    return [Tracking(name, config) for name in config.logging.trackers]


class Tracking(TrainerCallback):
    """Hands what Trainer logs to a tracker, by the names that `metrics.jsonl` has.

    Args:
        name: of the tracker.
        config: of the run, or of its stage.
    """

    def __init__(self, name: TrackerName, config: Config) -> None:
        self.name, self.tracker, self.config = name, TRACKERS[name], config
        self.inner: Any = getattr(integration_utils, self.tracker.callback)()
        if name == "tensorboard":
            # Its own default is a folder with the time in its name, and one for all stages.
            self.inner.logging_dir = self.inner.logging_dir or str(config.output_dir / name)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Called by Trainer; the first process opens a run.

        Raises:
            OneProcessError: where the tracker refuses, for want of an account or a network.
        """
        try:
            with _environment(self.tracker, self.config):
                self.inner.on_train_begin(args, state, control, **others)
        except Exception as error:
            # Each tracker has errors of its own.
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise OneProcessError(
                f"logging.trackers: {self.name} cannot begin a run: {reason}",
                f"Log in to it, use it offline ({self.tracker.offline}), or leave it out.",
            ) from error

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Called by Trainer."""
        with _names_kept():
            self.inner.on_log(args, state, control, **others)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Called by Trainer; the next stage counts its steps from 0 again, in a run of its own."""
        self.inner.on_train_end(args, state, control, **others)
        if self.tracker.finish and state.is_world_process_zero:
            getattr(importlib.import_module(self.name), self.tracker.finish)()


@contextmanager
def _environment(tracker: Tracker, config: Config) -> Iterator[None]:
    """What the integrations read from variables when a run begins, and the next run must not; those
    that the user has set count.
    """
    before = {name: os.environ.get(name) for name in (tracker.project, tracker.folder) if name}
    if tracker.project:
        known = os.environ.get(tracker.project, PROJECT)
        os.environ[tracker.project] = config.logging.project or known
    if tracker.folder:
        os.environ.setdefault(tracker.folder, str(config.output_dir))
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in (name for name, value in before.items() if value is None):
            os.environ.pop(name, None)


@contextmanager
def _names_kept() -> Iterator[None]:
    """The integrations would write `train/loss` for `loss`, and `eval/x` for `eval_x`."""
    ordinary = integration_utils.rewrite_logs
    integration_utils.rewrite_logs = dict
    try:
        yield
    finally:
        integration_utils.rewrite_logs = ordinary
