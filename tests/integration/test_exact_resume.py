"""Every way to lay out and order a run, killed inside an epoch and at an epoch's border, ends as if
left alone.
"""

from __future__ import annotations

import signal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.forking import start_ranks
from tests.running import same_result
from tests.tiny_data import tiny_tree

from sidtune.runs.checkpoints import newest_complete

PLANS = {
    "by user": {"group_by": "user"},
    "by example": {"group_by": "example"},
}
# Three steps an epoch and a checkpoint after every fourth: step 4 lies inside an epoch, step 12 at
# a border.
EVERY, LAST = 4, 16
DEATHS = {6: 4, 13: 12}
ORDINARY = ("full", "tree", "by user", 2)
CASES = [
    pytest.param(*case, marks=[] if case == ORDINARY else pytest.mark.long)
    for case in product(("full", "frozen"), ("tree", "bucketed", "padded"), PLANS, (1, 2))
]


@pytest.mark.parametrize(("tuning", "layout", "plan", "processes"), CASES)
def test_killed_inside_an_epoch_and_at_its_border(
    tmp_path: Path, tuning: str, layout: str, plan: str, processes: int
) -> None:
    def run(name: str) -> dict[str, Any]:
        return tiny_tree(
            tmp_path,
            output_dir=str(tmp_path / name),  # type: ignore[arg-type]
            model={"tuning": tuning, "residual_dropout": 0.1, "embedding_dropout": 0.1},
            training={
                "max_steps": LAST,
                "batch_size": 15,
                "layout": layout,
                "workers": 0,
                **PLANS[plan],
            },
            tasks={"sid_next": None},
            eval={"every": EVERY},
        )

    whole, killed = run("whole"), run("killed")
    assert [rank.ends() for rank in start_ranks(processes, whole, tmp_path)] == [0] * processes
    for death, saved in DEATHS.items():
        ranks = start_ranks(processes, killed, tmp_path, DIES_AT=str(death))
        # Where one is dead the other may notice before it comes to its own end.
        assert -signal.SIGKILL in [rank.ends() for rank in ranks]
        newest, _ = newest_complete(tmp_path / "killed")
        assert newest is not None
        assert newest.name == f"checkpoint-{saved}"
    assert [rank.ends() for rank in start_ranks(processes, killed, tmp_path)] == [0] * processes
    same_result(killed, whole)
