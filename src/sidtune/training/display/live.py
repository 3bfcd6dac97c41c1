"""What a terminal shows while a run trains, beneath the rows of its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sidtune.base.durations import rough_duration
from sidtune.base.terminal import console, in_main_thread
from sidtune.runs import best
from sidtune.training.display.time_left import TimeLeft

BLOCKS = "▁▂▃▄▅▆▇█"
SPARKS = 32
# What an entry leaves of the smoothed loss before it, and after how many nothing is left of one.
KEPT, REMEMBERED = 0.9, 200
REFRESHES = 4


class LiveView(TrainerCallback):
    """Progress with the time that is left, smoothed loss, throughput, memory, and the last and the
    best evaluation; on a terminal only.

    Args:
        time_left: called before this one.
    """

    def __init__(self, time_left: TimeLeft) -> None:
        self.time_left = time_left
        # Not started: the live display draws it.
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.step_bar: TaskID | None = None
        self.losses: list[float] = []
        self.entry: dict[str, float] = {}
        self.evaluated: tuple[str, float, int] | None = None
        self.best: tuple[float, int] | None = None
        self.live = Live(
            get_renderable=self.render,
            console=console,
            transient=True,
            refresh_per_second=REFRESHES,
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer; a resumed run shows what its log history has."""
        self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        name = str(args.metric_for_best_model)
        for entry in state.log_history:
            if name in entry and entry["step"] == state.best_global_step:
                self.best = entry[name], int(entry["step"])
        self.step_bar = self.bar.add_task(
            "training", total=state.max_steps, completed=state.global_step, left=""
        )
        if state.is_world_process_zero and is_drawn():
            self.live.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Called by Trainer."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            self.entry = logs

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer."""
        if self.step_bar is not None:
            # Evaluations are part of it, which the bar does not count.
            left = self.time_left.seconds
            self.bar.update(
                self.step_bar,
                completed=state.global_step,
                description="training",
                left="" if left is None else f"{rough_duration(left)} left",
            )

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called during evaluation."""
        if self.step_bar is not None:
            self.bar.update(self.step_bar, description="evaluating")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Called by Trainer; what is shown is the metric that chooses the saved model."""
        name = str(args.metric_for_best_model)
        if not metrics or name not in metrics:
            return
        value, step = metrics[name], state.global_step
        self.evaluated = name.removeprefix("eval_"), value, step
        # The evaluation before the first step does not count.
        if step and best.is_best(metrics, state.best_metric, args):
            self.best = value, step

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer."""
        self.stop()

    def stop(self) -> None:
        """Remove the display, if there is one."""
        self.live.stop()

    def render(self) -> RenderableType:
        """The display as it is now."""
        lines = [self._loss(), self._speed(), self._evaluation()]
        texts = [
            Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines if line
        ]
        return Group(self.bar, *texts)

    def _loss(self) -> str:
        if not self.losses:
            return ""
        return f"loss {smoothed(self.losses):.4f}  {sparkline(self.losses, SPARKS)}"

    def _speed(self) -> str:
        if not self.entry:
            return ""
        return (
            f"{self.entry['tokens_per_second']:,.0f} tokens/s,"
            f" {self.entry['useful_tokens']:.0%} of them no padding,"
            f" {self.entry['memory_gib']:.1f} GiB"
        )

    def _evaluation(self) -> str:
        if self.evaluated is None:
            return ""
        name, value, step = self.evaluated
        best = f", best {self.best[0]:.4f} at step {self.best[1]:,}" if self.best else ""
        return f"validation {name} {value:.4f} at step {step:,}{best}"


def is_drawn() -> bool:
    """Whether a display can be drawn: on a terminal, by the main thread, which Rich wants."""
    return console.is_terminal and not console.quiet and in_main_thread()


def smoothed(values: Sequence[float]) -> float:
    """The exponentially weighted mean of the values, the last one weighing most."""
    latest = values[-REMEMBERED:]
    weights = KEPT ** np.arange(len(latest))[::-1]
    return float(np.average(latest, weights=weights))


def sparkline(values: Sequence[float], width: int) -> str:
    """At most so many blocks, each as high as the mean of its share of the values; empty where a
    terminal cannot show them.
    """
    if not console.encoding.lower().startswith("utf"):
        return ""
    means = np.array([part.mean() for part in np.array_split(values, min(width, len(values)))])
    span = np.ptp(means)
    heights = (means - means.min()) / span if span else np.zeros(len(means))
    return "".join(BLOCKS[int(height * (len(BLOCKS) - 1) + 0.5)] for height in heights)
