"""Warns early of a training loss that jumps or does not fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sidtune.base.terminal import warn

# All counted in entries of the log. On sixteen runs of the demo, the recipes and docs/quality.md,
# recent entries never stood more than 2.5 spreads or 16 percent above those before them.
BEFORE, RECENT, FEWEST = 50, 5, 20
SPREADS, RATIO = 4.0, 1.25
# Over a fifth of the run, the first half of those runs always fell by more than four percent.
SHARE, SHORTEST, FALL = 5, 100, 0.01
# Below this loss, in nats per label, there is nothing left to learn.
LEARNED = 0.1
# From the median of absolute differences of neighbours to a standard deviation, if they were
# normally distributed.
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

    A kind of warning is given once, and again only after as many entries as it looks at.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.silent = dict.fromkeys(CAUSES, 0)
        self.ignored = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer; a resumed run remembers its entries."""
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
    """The median of the entries before and of the recent ones, where the latter stands far above.

    Medians of several: one odd step, such as the small one that ends an epoch, is no jump.
    """
    before, recent = losses[-BEFORE - RECENT : -RECENT], losses[-RECENT:]
    if len(before) < FEWEST:
        return None
    usual, now = float(np.median(before)), float(np.median(recent))
    # Of neighbours: a loss that rises slowly would hide itself in a spread around the median.
    spread = NORMAL * float(np.median(np.abs(np.diff(before))))
    return (usual, now) if now > max(usual + SPREADS * spread, RATIO * usual, LEARNED) else None


def flat_window(planned: int) -> int:
    """Entries that a run of so many is judged by."""
    return max(SHORTEST, planned // SHARE)


def stands_still(losses: Sequence[float], planned: int, seen: int) -> bool:
    """Whether the second half of the latest window is not lower than the first.

    Only in the first half of the run: towards its end the schedule slows learning down on purpose.

    Args:
        losses: the entries after warmup.
        planned: entries of the whole run.
        seen: entries so far.
    """
    length = flat_window(planned)
    # The windows overlap by nine tenths: one more entry says little.
    if len(losses) < length or 2 * seen > planned or (len(losses) - length) % (length // 10):
        return False
    earlier, later = np.array_split(np.asarray(losses[-length:]), 2)
    return bool(later.mean() > max(LEARNED, (1 - FALL) * earlier.mean()))
