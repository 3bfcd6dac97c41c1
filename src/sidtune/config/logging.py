"""`logging`: where metrics are logged."""

from __future__ import annotations

from sidtune.config.section import Positive, Section


class LoggingConfig(Section):
    """Loggers in addition to the console and metrics.jsonl."""

    every: Positive = 1
    tensorboard: bool = False
    wandb_project: str | None = None
    wandb_run_name: str | None = None
    report: bool = True
