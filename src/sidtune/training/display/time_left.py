"""How long a training will take: measured on its first steps, and kept up to date."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sidtune.base.durations import rough_duration
from sidtune.base.terminal import starting

# Seconds of steps after which the rest is foretold, and of a rest that is not worth a line.
ENOUGH, LITTLE = 10.0, 5.0
# Steps whose mean the next ones are expected to take.
RECENT = 50


class TimeLeft(TrainerCallback):
    """Says what begins, and after a few steps, once, how long the others take, with the evaluations
    between them; the one before the first step tells how long those are.

    `seconds`: what is left after the latest step, None before the first; of a resumed run, without
    evaluations until one is made.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.evaluation: float | None = None
        self.recent: deque[float] = deque(maxlen=RECENT)
        # Steps, and seconds of all of them.
        self.steps, self.spent = 0, 0.0
        # When what goes on now began; a step after an evaluation begins when it begins itself.
        self.began, self.apart = 0.0, True
        self.said = False

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
        self.evaluation, self.apart = time.monotonic() - self.began, True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer after an evaluation, whose checkpoint takes time too."""
        self.evaluation, self.apart = time.monotonic() - self.began, True

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer."""
        if self.apart:
            self.began, self.apart = time.monotonic(), False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer."""
        now = time.monotonic()
        self._count(now - self.began)
        self.began = now
        steps = state.max_steps - state.global_step
        evaluations = math.ceil(state.max_steps / state.eval_steps) - (
            (state.global_step - 1) // state.eval_steps
        )
        each = sum(self.recent) / len(self.recent)
        self.seconds = steps * each + evaluations * (self.evaluation or 0.0)
        if not self.said and (self.spent >= ENOUGH or control.should_evaluate):
            self.said = True
            self._say(self.seconds, steps, evaluations)

    def _count(self, seconds: float) -> None:
        # The first step is slower than the others.
        if self.steps == 1:
            self.recent.clear()
        self.recent.append(seconds)
        self.steps, self.spent = self.steps + 1, self.spent + seconds

    def _say(self, seconds: float, steps: int, evaluations: int) -> None:
        if seconds < LITTLE:
            return
        counted = "" if self.evaluation is not None else " not counting the evaluations,"
        starting(
            f"Training: at most about {rough_duration(seconds)} more,{counted} for {steps:,} steps"
            f" and {evaluations:,} evaluation{'s' if evaluations > 1 else ''}"
        )
