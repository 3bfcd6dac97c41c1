"""On SIGTERM or SIGINT, a run finishes its step, saves a checkpoint and ends."""

from __future__ import annotations

import signal
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sidtune.base.errors import Interrupted
from sidtune.base.signals import StopRequest
from sidtune.distributed.processes import largest


class StopWhenAsked(TrainerCallback):
    """Ends the run after the current step with a checkpoint, on all ranks at the same step.

    The checkpoint is saved without an additional evaluation: the resumed run must be identical to
    one that was never stopped.

    Args:
        request: the stop request of this process.
    """

    def __init__(self, request: StopRequest) -> None:
        self.request, self.number = request, 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Called by Trainer."""
        self.number = largest(self.request.number, args)
        if self.number:
            control.should_save = True
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer when the checkpoint is complete.

        Raises:
            Interrupted: says how to resume the run.
        """
        # Also handle a request that arrived during evaluation or saving.
        self.number = self.number or largest(self.request.number, args)
        if self.number:
            raise Interrupted(
                f"Stopped by {signal.Signals(self.number).name} after step {state.global_step:,} of"
                f" {state.max_steps:,}; the checkpoint is saved. Run the same command again to"
                " resume."
            )
