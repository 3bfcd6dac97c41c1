"""Says how long a training will take, as soon as its first steps tell."""

from __future__ import annotations

import math
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sidtune.base.durations import duration
from sidtune.base.terminal import starting

# Seconds of steps after which the rest is foretold, and of a rest that is not worth a line.
ENOUGH, LITTLE = 3.0, 5.0


class TimeLeft(TrainerCallback):
    """Says what begins, and after a few steps, once, how long the others take, with the evaluations
    between them; the one before the first step tells how long those are.
    """

    def __init__(self) -> None:
        self.began = self.step_began = self.first_ended = 0.0
        self.evaluation: float | None = None
        self.steps, self.said = 0, False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer."""
        self.began = time.monotonic()
        first = "an evaluation of the start, then " if args.eval_on_start else ""
        starting(f"Training: {first}steps, the first of which tell how long it takes")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer."""
        if not self.steps:
            self.evaluation = time.monotonic() - self.began

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer."""
        if not self.steps:
            self.step_began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer; an evaluation that follows must not count as a step's time."""
        now, self.steps = time.monotonic(), self.steps + 1
        if self.steps == 1:
            self.first_ended = now
        if self.said or (now - self.step_began < ENOUGH and not control.should_evaluate):
            return
        self.said = True
        # The first step is slower than the others.
        warm = self.steps > 1
        each = (now - (self.first_ended if warm else self.step_began)) / (self.steps - warm)
        steps = state.max_steps - state.global_step
        evaluations = math.ceil(state.max_steps / state.eval_steps) - (
            (state.global_step - 1) // state.eval_steps
        )
        seconds = steps * each + evaluations * (self.evaluation or 0.0)
        if seconds < LITTLE:
            return
        counted = "" if self.evaluation is not None else " not counting the evaluations,"
        starting(
            f"Training: at most about {duration(seconds)} more,{counted} for {steps:,} steps and"
            f" {evaluations:,} evaluation{'s' if evaluations > 1 else ''}"
        )
