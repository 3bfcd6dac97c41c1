"""Warnings about the loss: hand-worked series, and none where a run goes as runs do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from sidtune.training.guards.watch import (
    BEFORE,
    FEWEST,
    LossWatch,
    flat_window,
    jumped,
    stands_still,
)


def test_a_jump_is_of_the_medians() -> None:
    """Before: 2.0 and 2.2 in turn, whose median is 2.1 and whose neighbours all differ by 0.2: the
    bar is max(2.1 + 4 · 1.4826 · 0.2 / √2, 1.25 · 2.1) = max(2.939, 2.625).
    """
    before = [2.0, 2.2] * 25
    assert jumped([*before, 2.94, 2.94, 2.94, 2.0, 9.0]) == (pytest.approx(2.1), 2.94)
    assert jumped([*before, 2.93, 2.93, 2.93, 2.0, 9.0]) is None
    assert jumped([*before, 2.0, 9.0, 2.0, 9.0, 2.0]) is None, "two odd steps of five"
    steady = [2.0] * 50  # 1.25 · 2.0 = 2.5
    assert jumped([*steady, *[2.49] * 5]) is None
    assert jumped([*steady, *[2.51] * 5]) == (2.0, 2.51)


def test_a_jump_needs_something_to_compare_with() -> None:
    assert jumped([2.0] * (FEWEST - 1) + [9.0] * 5) is None
    assert jumped([2.0] * FEWEST + [9.0] * 5) == (2.0, 9.0)
    assert jumped([0.01] * 30 + [0.09] * 5) is None, "nearly nothing is left of this loss"


def test_a_window_is_a_fifth_of_the_run() -> None:
    assert [flat_window(planned) for planned in (30, 500, 1_000)] == [100, 100, 200]


def test_standing_still_is_of_the_means_of_two_halves() -> None:
    """500 entries are planned: the window is 100, its halves are 50 each."""
    assert stands_still([4.0] * 50 + [3.97] * 50, planned=500, seen=100)
    assert not stands_still([4.0] * 50 + [3.95] * 50, planned=500, seen=100), (
        "more than a hundredth lower"
    )
    assert stands_still([4.0] * 50 + [5.0] * 50, planned=500, seen=100), (
        "a loss that rises does not fall"
    )
    assert not stands_still([4.0] * 99, planned=500, seen=99)
    assert stands_still([4.0] * 110, planned=500, seen=250)
    assert not stands_still([4.0] * 110, planned=500, seen=251), "the second half of the run"
    assert not stands_still([4.0] * 104, planned=500, seen=104), "looked at every tenth of a window"
    assert not stands_still([0.09] * 100, planned=500, seen=100), "learned"


def watched(
    losses: list[float], warmup: int = 0, planned: int | None = None, known: int = 0
) -> list[str]:
    """The warnings of a run that logs these losses, the first `known` of them before it was
    interrupted.
    """
    said: list[str] = []
    arguments = TrainingArguments(
        output_dir="unused", logging_steps=1, warmup_steps=warmup, report_to=[]
    )
    state = TrainerState(
        max_steps=planned or len(losses), log_history=[{"loss": loss} for loss in losses[:known]]
    )
    watch: Any = LossWatch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sidtune.training.guards.watch.warn", said.append)
        watch.on_train_begin(arguments, state, TrainerControl())
        for step, loss in enumerate(losses[known:], start=known + 1):
            state.global_step = step
            watch.on_log(arguments, state, TrainerControl(), logs={"loss": loss})
            watch.on_log(arguments, state, TrainerControl(), logs={"eval_sid_next_loss": loss})
    return said


def test_a_jump_is_said_once_with_its_causes() -> None:
    (warning,) = watched([2.0] * 60 + [6.0] * 40, planned=100)
    assert warning.startswith("step 63: the loss is 6.000, up from about 2.000.")
    for word in (
        "training.learning_rate",
        "training.warmup",
        "“The loss jumps” in docs/troubleshooting.md",
    ):
        assert word in warning
    again = watched([2.0] * 60 + [6.0] * 40 + [2.0] * 60 + [6.0] * 40, planned=100)
    assert [warning.partition(":")[0] for warning in again] == ["step 63", "step 163"]


def test_a_run_that_diverges_is_told_again_after_a_while() -> None:
    rising = [2.0 * 1.02**step for step in range(300)]
    steps = [
        int(warning.split()[1][:-1])
        for warning in watched(rising, planned=10_000)
        if "up from" in warning
    ]
    assert len(steps) > 2
    assert min(np.diff(steps)) >= BEFORE


def test_a_flat_loss_is_said_after_warmup() -> None:
    (warning,) = watched([4.0] * 140, planned=500, warmup=30)
    assert warning.startswith("step 130: the loss has not fallen in 100 steps: 4.000.")
    assert "“The loss does not fall” in docs/troubleshooting.md" in warning


def test_a_resumed_run_remembers() -> None:
    losses = [2.0] * 60 + [6.0] * 5
    assert watched(losses, known=61) == watched(losses)
    assert len(watched(losses)) == 1


def test_ordinary_curves_are_left_alone() -> None:
    """Noise of a sixteenth around curves that fall fast, slowly, and to a plateau in the second
    half.
    """
    random = np.random.default_rng(0)
    for steps in (60, 300, 3_000):
        time = np.arange(steps) / steps
        for curve in (2 + 5 * np.exp(-8 * time), 3 - time, 1 + 6 * np.maximum(0, 0.6 - time)):
            assert watched((curve * random.normal(1, 1 / 16, steps)).tolist(), warmup=20) == []
