"""`logging`: where metrics are logged."""

from __future__ import annotations

from pydantic import Field

from sidtune.config.section import Positive, Section


class LoggingConfig(Section):
    """Loggers in addition to the console and metrics.jsonl."""

    every: Positive = Field(default=1, description="steps between entries of `metrics.jsonl`")
    tensorboard: bool = Field(
        default=False,
        description=("also log to `output_dir/tensorboard` (`pip install 'sidtune[tensorboard]'`)"),
    )
    wandb_project: str | None = Field(
        default=None, description="also log to this W&B project (`pip install 'sidtune[wandb]'`)"
    )
    wandb_run_name: str | None = Field(default=None, description="name of the W&B run")
