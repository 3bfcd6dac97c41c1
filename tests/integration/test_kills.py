"""Runs that are killed at random moments go on to the weights and metrics of one that was left alone, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.forking import Run
from tests.running import same_result
from tests.tiny_data import tiny_tree

from sidtune.training.checkpoints import FINAL, damage, newest_complete, step_of


def often_saving(folder: Path, name: str, **training: Any) -> dict[str, Any]:
    """Dropout and an average of weights, a checkpoint after every step, and the fewest kept."""
    return tiny_tree(
        folder,
        output_dir=str(folder / name),  # type: ignore[arg-type]
        model={"residual_dropout": 0.1},
        tasks={"sid_next": None},
        # Three steps an epoch: the last lies inside one.
        training={"max_steps": 11, "batch_size": 16, "learning_rate": 0.01, "ema": 0.9, **training},
        eval={"every": 1, "save_total_limit": 1},
    )


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.long)])
def test_killed_runs_end_like_one_that_was_left_alone(tmp_path: Path, kills: int) -> None:
    whole, chance = often_saving(tmp_path, "whole"), random.Random(kills)
    Run(whole, tmp_path / "first.log").ends()
    # Again, as the others will find it: everything is encoded.
    again, began = often_saving(tmp_path, "again", workers=0), time.monotonic()
    assert Run(again, tmp_path / "again.log").ends() == 0
    seconds, killed, steps = time.monotonic() - began, 0, set()
    same_result(again, whole)
    for number in range(1000):
        tree = often_saving(tmp_path, f"run{number}", workers=number % 2)
        folder, step = Path(tree["output_dir"]), 0
        while not (folder / FINAL).exists():
            run = Run(tree, tmp_path / f"{number}.log")
            # Towards the end of the test runs are let finish.
            patience = chance.uniform(0, 1.1 * seconds) if killed < kills else 120
            if run.runs_for(patience):
                run.signal(signal.SIGKILL)
                assert run.ends() == -signal.SIGKILL
                killed += 1
            else:
                assert run.process.exitcode == 0, run.said()
            newest, skipped = newest_complete(folder)
            assert not skipped, "what is not complete is not visible"
            assert newest or not step, "a complete checkpoint is never lost"
            reached = step_of(newest) if newest else 0
            assert reached >= step
            step = reached
            steps.add(step)
        assert damage(folder / FINAL) is None
        same_result(tree, whole)
        if killed >= kills:
            break
    assert killed == kills
    print(f"{killed} kills in {number + 1} runs, of {seconds:.1f} s undisturbed; newest checkpoints: {sorted(steps)}")
