"""`logging`: where metrics are logged."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sidtune.config.section import Positive, Section

TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow", "swanlab"]
PROJECT = "sidtune"
Name = Annotated[str, Field(min_length=1)]


class LoggingConfig(Section):
    """Loggers in addition to the console and metrics.jsonl."""

    every: Positive = Field(default=1, description="steps between entries of `metrics.jsonl`")
    trackers: tuple[TrackerName, ...] = Field(
        default=(),
        description=(
            "where the same metrics are also logged: some of `tensorboard` (into"
            " `output_dir/tensorboard`), `wandb`, `trackio`, `mlflow` and `swanlab`. Each is an"
            " extra: `pip install 'sidtune[wandb]'`"
        ),
    )
    project: Name | None = Field(
        default=None,
        description=(
            "project (MLflow: experiment) of the trackers. null: what their environment variable"
            " says, or `sidtune`"
        ),
    )
    run_name: Name | None = Field(
        default=None, description="name of the run in the trackers. null: that of `output_dir`"
    )
    report: bool = Field(
        default=True,
        description=(
            "leave `report.html` in the run's folder after training and evaluation, where"
            " `sidtune[report]` is installed"
        ),
    )

    @model_validator(mode="after")
    def _names_are_used(self) -> Self:
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError("trackers: a tracker stands twice")
        for name in ("project", "run_name"):
            if getattr(self, name) is not None and not self.trackers:
                raise ValueError(f"{name} has no effect without trackers")
        return self
