"""The live display of a run: what it shows, and that it stays away where nobody looks."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from sidtune.base.terminal import SafeConsole
from sidtune.training.display import live
from sidtune.training.display.live import LiveView, smoothed, sparkline
from sidtune.training.display.time_left import TimeLeft

ARGUMENTS: Any = SimpleNamespace(
    metric_for_best_model="eval_sid_next_loss", greater_is_better=False
)
CONTROL: Any = None


def state(step: int, **more: Any) -> Any:
    usual = {
        "global_step": step,
        "max_steps": 100,
        "is_world_process_zero": True,
        "log_history": [],
        "best_metric": None,
        "best_global_step": None,
    }
    return SimpleNamespace(**(usual | more))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> SafeConsole:
    """A terminal of eighty columns."""
    made = SafeConsole(
        file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), force_terminal=True, width=80
    )
    monkeypatch.setattr(live, "console", made)
    return made


def entry(loss: float) -> dict[str, float]:
    speed = {"tokens_per_second": 12_345.6, "useful_tokens": 0.97, "memory_gib": 1.24}
    return {"loss": loss, **speed}


def shown(view: LiveView, screen: SafeConsole) -> str:
    with screen.capture() as captured:
        screen.print(view.render())
    lines = captured.get().splitlines()
    return "\n".join(lines)


def test_it_shows_progress_loss_speed_and_the_best_evaluation(screen: SafeConsole) -> None:
    time_left = TimeLeft()
    time_left.seconds = 240.0
    view = LiveView(time_left)
    view.on_train_begin(ARGUMENTS, state(0, is_world_process_zero=False), CONTROL)
    lowest = None
    for step, loss in ((0, 9.0), (20, 3.0), (40, 2.5), (60, 2.75)):
        view.on_log(ARGUMENTS, state(step), CONTROL, entry(loss))
        view.on_step_end(ARGUMENTS, state(step), CONTROL)
        evaluated = state(step, best_metric=lowest)
        view.on_evaluate(ARGUMENTS, evaluated, CONTROL, {"eval_sid_next_loss": loss})
        lowest = min(loss, lowest or loss) if step else None
    text = shown(view, screen)
    assert "60/100" in text
    assert "4 minutes left" in text
    assert f"loss {smoothed([9.0, 3.0, 2.5, 2.75]):.4f}  █▂▁▁" in text
    assert "12,346 tokens/s, 97% of them no padding, 1.2 GiB" in text
    assert "validation sid_next_loss 2.7500 at step 60, best 2.5000 at step 40" in text


def test_a_resumed_run_shows_what_it_knows(screen: SafeConsole) -> None:
    view = LiveView(TimeLeft())
    history = [{"step": 1, "loss": 4.0}, {"step": 1, "eval_sid_next_loss": 3.0}]
    resumed = state(
        10,
        log_history=history,
        best_metric=3.0,
        best_global_step=1,
        is_world_process_zero=False,
    )
    view.on_train_begin(ARGUMENTS, resumed, CONTROL)
    evaluated = state(11, best_metric=3.0)
    view.on_evaluate(ARGUMENTS, evaluated, CONTROL, {"eval_sid_next_loss": 3.5})
    text = shown(view, screen)
    assert "10/100" in text
    assert "loss 4.0000" in text
    assert "best 3.0000 at step 1" in text


def test_it_is_drawn_and_removed_on_a_terminal_alone(
    screen: SafeConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = LiveView(TimeLeft())
    view.on_train_begin(ARGUMENTS, state(0), CONTROL)
    assert view.live.is_started
    view.on_train_end(ARGUMENTS, state(1), CONTROL)
    assert not view.live.is_started
    screen.quiet = True
    silent = LiveView(TimeLeft())
    silent.on_train_begin(ARGUMENTS, state(0), CONTROL)
    assert not silent.live.is_started
    file = io.StringIO()
    monkeypatch.setattr(live, "console", SafeConsole(file=file))
    logged = LiveView(TimeLeft())
    logged.on_train_begin(ARGUMENTS, state(0), CONTROL)
    logged.on_step_end(ARGUMENTS, state(1), CONTROL)
    logged.stop()
    assert file.getvalue() == ""


def test_the_smoothed_loss_follows_the_latest_entries() -> None:
    assert smoothed([2.0]) == 2.0
    assert smoothed([1.0, 2.0]) == pytest.approx((0.9 * 1 + 2) / 1.9)
    assert smoothed([9.0] * 500 + [1.0] * 500) == pytest.approx(1.0)


def test_a_sparkline_has_a_block_for_each_share(screen: SafeConsole) -> None:
    assert sparkline([8.0, 1.0], 10) == "█▁"
    assert sparkline([1.0, 1.0, 1.0], 10) == "▁▁▁"
    assert sparkline([7.0, 9.0, 4.0, 4.0, 0.0, 2.0], 3) == "█▄▁"


def test_terminals_without_blocks_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(live, "console", SafeConsole(file=plain))
    assert sparkline([1.0, 2.0], 10) == ""
