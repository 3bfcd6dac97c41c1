"""What a run says of its duration, by a clock that the test turns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidtune.training.display import time_left
from sidtune.training.display.time_left import TimeLeft


class Run:
    """Calls what Trainer calls, and turns the clock meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int = 0) -> None:
        self.now, self.said = 100.0, list[str]()
        monkeypatch.setattr(time_left.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time_left, "starting", self.said.append)
        self.view: Any = TimeLeft()
        self.state: Any = SimpleNamespace(global_step=step, max_steps=100, eval_steps=30)
        self.control: Any = SimpleNamespace(should_evaluate=False)
        self.call("on_train_begin")

    def call(self, event: str) -> None:
        arguments: Any = SimpleNamespace(eval_on_start=not self.state.global_step)
        getattr(self.view, event)(arguments, self.state, self.control)

    def evaluation(self, seconds: float) -> None:
        self.now += seconds
        self.call("on_evaluate")

    def step(self, seconds: float, evaluated: bool = False, waited: float = 0.0) -> None:
        self.now += waited
        self.call("on_step_begin")
        self.now += seconds
        self.state.global_step += 1
        self.control.should_evaluate = evaluated
        self.call("on_step_end")


def test_it_counts_later_steps_and_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.evaluation(10.0)
    run.step(5.0)
    run.step(3.0)
    assert run.said == [
        "Training: an evaluation of the start, then steps, the first of which tell how long it"
        " takes"
    ]
    run.step(4.0)
    # 97 steps of 3.5 s, the first being left out, and evaluations at 30, 60, 90 and 100.
    seconds = 97 * 3.5 + 4 * 10
    assert seconds == 379.5
    assert run.said[1:] == [
        "Training: at most about 6 minutes more, for 97 steps and 4 evaluations"
    ]
    run.step(5.0)
    assert len(run.said) == 2, "once"


def test_a_slow_first_step_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.evaluation(600.0)
    run.step(36.0)
    assert run.said[1:] == [
        "Training: at most about 2 hours more, for 99 steps and 4 evaluations"
    ], "99 steps of 36 s are 59 minutes, and four evaluations 40"


def test_an_evaluation_is_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.state.eval_steps = 2
    run.evaluation(1.0)
    run.step(0.5)
    run.step(0.1, evaluated=True)
    # 98 steps of 0.1 s, and evaluations at 2, 4, …, 100.
    assert run.said[1:] == [
        "Training: at most about 1 minute more, for 98 steps and 50 evaluations"
    ]


def test_a_resumed_run_does_not_know_its_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, step=89)
    for _ in range(4):
        run.step(4.0)
    assert run.said == [
        "Training: steps, the first of which tell how long it takes",
        "Training: at most about 30 seconds more, not counting the evaluations, for 8 steps and 1"
        " evaluation",
    ]


def test_little_is_not_worth_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.evaluation(0.1)
    for _ in range(91):
        run.step(0.12)
    assert run.view.spent > time_left.ENOUGH
    assert len(run.said) == 1


def test_what_is_left_follows_later_steps_and_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    assert run.view.seconds is None
    run.evaluation(10.0)
    for _ in range(29):
        run.step(1.0)
    assert run.view.seconds == pytest.approx(71 * 1 + 4 * 10)
    run.step(1.0, evaluated=True)
    run.evaluation(20.0)
    run.now += 4.0
    run.call("on_save")
    # Loading the first data after an evaluation is no part of a step; waiting for data later is.
    run.step(1.0, waited=7.0)
    assert run.view.seconds == pytest.approx(69 * 1 + 3 * 24)
    for _ in range(50):
        run.step(2.0, waited=1.0)
    assert run.view.seconds == pytest.approx(19 * 3 + 2 * 24), "the latest steps count"
