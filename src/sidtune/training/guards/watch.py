"""Warns early of a training loss that jumps or does not fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sidtune.base.terminal import warn

# In log entries. In sixteen runs of the demo, the recipes and docs/quality.md, recent entries were
# never more than 2.5 spreads or 16 percent above those before them.
BEFORE, RECENT, FEWEST = 50, 5, 20
SPREADS, RATIO = 4.0, 1.25
# In the first half of those runs, the loss always fell by more than four percent over a fifth of
# the run.
SHARE, SHORTEST, FALL = 5, 100, 0.01
# Below this loss, in nats per label, there is nothing left to learn.
LEARNED = 0.1
# Converts the median absolute difference of neighbours to a standard deviation, assuming a normal
# distribution.
NORMAL = 1.4826 / 2**0.5

CAUSES = {
    "jump": (
        "Likely causes: training.learning_rate is too high, training.warmup is too short, or rows"
        " of these steps are faulty. See “The loss jumps” in docs/troubleshooting.md."
    ),
    "flat": (
        "Likely causes: training.learning_rate does not suit this base or tuning, the prompt does"
        " not determine the response, or the weights were already trained on this data. See “The"
        " loss does not fall” in docs/troubleshooting.md."
    ),
}


class LossWatch(TrainerCallback):
    """Warns of a loss that jumps, or that does not fall in the first half of a run.

    A warning is repeated only after as many log entries as its window has.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.silent = dict.fromkeys(CAUSES, 0)
        self.ignored = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer; a resumed run restores the losses logged so far."""
        self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.ignored = args.get_warmup_steps(state.max_steps) // int(args.logging_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Called by Trainer."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        self.losses.append(logs["loss"])
        found, planned = jumped(self.losses), state.max_steps // int(args.logging_steps)
        if found:
            before, now = found
            self._say("jump", state, f"the loss is {now:.3f}, up from about {before:.3f}", BEFORE)
        if stands_still(self.losses[self.ignored :], planned, len(self.losses)):
            length = flat_window(planned)
            steps = length * int(args.logging_steps)
            self._say(
                "flat",
                state,
                f"the loss has not fallen in {steps:,} steps: {self.losses[-1]:.3f}",
                length,
            )

    def _say(self, kind: str, state: TrainerState, what: str, silence: int) -> None:
        if len(self.losses) >= self.silent[kind]:
            self.silent[kind] = len(self.losses) + silence
            warn(f"step {state.global_step}: {what}. {CAUSES[kind]}")


def jumped(losses: Sequence[float]) -> tuple[float, float] | None:
    """The medians of earlier and of recent entries if the latter is far higher, else None.

    Medians, so that one outlier, such as an epoch's smaller last step, is no jump.
    """
    before, recent = losses[-BEFORE - RECENT : -RECENT], losses[-RECENT:]
    if len(before) < FEWEST:
        return None
    usual, now = float(np.median(before)), float(np.median(recent))
    # Of neighbours: a slowly rising loss would inflate a spread around the median.
    spread = NORMAL * float(np.median(np.abs(np.diff(before))))
    return (usual, now) if now > max(usual + SPREADS * spread, RATIO * usual, LEARNED) else None


def flat_window(planned: int) -> int:
    """Window length of `stands_still`, for a run of `planned` log entries."""
    return max(SHORTEST, planned // SHARE)


def stands_still(losses: Sequence[float], planned: int, seen: int) -> bool:
    """Whether the mean loss fell by less than one percent between the halves of the latest window.

    Only checked in the first half of the run: later, the schedule lowers the learning rate.

    Args:
        losses: the entries after warmup.
        planned: entries of the whole run.
        seen: entries so far.
    """
    length = flat_window(planned)
    # Check once per tenth of a window: a single entry adds little.
    if len(losses) < length or 2 * seen > planned or (len(losses) - length) % (length // 10):
        return False
    earlier, later = np.array_split(np.asarray(losses[-length:]), 2)
    return bool(later.mean() > max(LEARNED, (1 - FALL) * earlier.mean()))
