"""Runs that are killed at random moments go on to the weights and metrics of one that was left
alone, bit for bit.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.forking import PATIENCE, Run
from tests.running import same_result
from tests.tiny_data import tiny_tree

from sidtune.runs.checkpoints import FINAL, damage, newest_complete, step_of

Tree = dict[str, Any]
STAGES = [{"tuning": "frozen", "steps": 5}, {"tuning": "full", "steps": 5}]


def plain(folder: Path, name: str, workers: int) -> Tree:
    """Dropout, a checkpoint after every step, and the fewest kept."""
    return tiny_tree(
        folder,
        output_dir=str(folder / name),  # type: ignore[arg-type]
        model={"residual_dropout": 0.1},
        tasks={"sid_next": None},
        # Three steps an epoch: the last lies inside one.
        training={
            "max_steps": 11,
            "batch_size": 16,
            "learning_rate": 0.01,
            "workers": workers,
        },
        eval={"every": 1, "save_total_limit": 1},
    )


def staged(folder: Path, name: str, workers: int) -> Tree:
    """The same in two stages, the first of them frozen."""
    tree = plain(folder, name, workers) | {"stages": STAGES}
    del tree["training"]["max_steps"], tree["training"]["epochs"]
    return tree


def progress(folder: Path) -> tuple[int, int]:
    """Stage and step that a run would go on from; what is visible is complete."""
    for stage, part in enumerate((folder, folder / "stage-1")):
        newest, skipped = newest_complete(part)
        assert not skipped, "what is not complete is not visible"
        if newest:
            return -stage, step_of(newest)
    return -2, 0


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        (plain, 3),
        pytest.param(plain, 50, marks=pytest.mark.long),
        pytest.param(staged, 25, marks=pytest.mark.long),
    ],
)
def test_killed_runs_end_like_one_that_was_left_alone(
    tmp_path: Path, kind: Callable[[Path, str, int], Tree], kills: int
) -> None:
    whole, chance = kind(tmp_path, "whole", 1), random.Random(kills)
    Run(whole, tmp_path / "first.log").ends()
    # Again, as the others will find it: everything is encoded.
    again, began = kind(tmp_path, "again", 0), time.monotonic()
    assert Run(again, tmp_path / "again.log").ends() == 0
    seconds, killed, seen = time.monotonic() - began, 0, set()
    same_result(again, whole)
    for number in range(1000):
        tree = kind(tmp_path, f"run{number}", number % 2)
        folder, before = Path(tree["output_dir"]), (-2, 0)
        while not (folder / FINAL).exists():
            run = Run(tree, tmp_path / f"{number}.log")
            # Towards the end of the test runs are let finish.
            patience = chance.uniform(0, 1.1 * seconds) if killed < kills else PATIENCE
            if run.runs_for(patience):
                run.signal(signal.SIGKILL)
            # It may have come to its end just before.
            status = run.ends()
            assert status in (0, -signal.SIGKILL), run.said()
            killed += status != 0
            reached = progress(folder)
            assert reached >= before, "a complete checkpoint is never lost"
            before = reached
            seen.add(reached)
        assert damage(folder / FINAL) is None
        same_result(tree, whole)
        if killed >= kills:
            break
    assert killed == kills
    steps = ", ".join(
        f"{step}" if kind is plain else f"{stage + 2}:{step}" for stage, step in sorted(seen)
    )
    print(
        f"{killed} kills in {number + 1} runs ({kind.__name__}) of {seconds:.1f} s undisturbed;"
        f" went on from {steps}"
    )
