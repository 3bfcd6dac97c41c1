"""Two processes: they stop together, whichever of them finds the fault, and it is said once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.forking import start_ranks
from tests.tiny_data import tiny_tree
from tests.tiny_models import make_base

OPENING = """
import math, os, torch
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.trainer import StepTrainer

forward, step = LabelLoss.forward, StepTrainer.training_step
now, first = [-1], os.environ["RANK"] == "0"

def noting(self, *args, **kwargs):
    now[0] = self.state.global_step
    META
    return step(self, *args, **kwargs)

def breaking(self, input_ids, *args, **kwargs):
    loss, by_task = forward(self, input_ids, *args, **kwargs)
    if now[0] == 3 and self.model.training and not first:
        FAULT
    return loss, by_task

StepTrainer.training_step, LabelLoss.forward = noting, breaking
"""


def train(folder: Path, meta: str, fault: str, **sections: Any) -> tuple[str, Path]:
    """Train in two processes, the second of which has a fault in step 4; what both say, and the
    run's folder.
    """
    tree = tiny_tree(folder, eval={"every": 1, "patience": None}, **sections)
    ranks = start_ranks(
        2, tree, folder, OPENING=OPENING.replace("META", meta).replace("FAULT", fault)
    )
    assert 0 not in [rank.ends() for rank in ranks]
    return " ".join(rank.said() for rank in ranks), Path(tree["output_dir"])


def test_a_loss_that_is_not_finite_in_one_process_stops_both(tmp_path: Path) -> None:
    """Its gradient is finite: the other process hears of it all the same."""
    said, run = train(tmp_path, "pass", "by_task = by_task + math.inf")
    assert said.count("error: step 4: the loss is not finite") == 1, said[-3000:]
    assert sorted(path.name for path in run.glob("checkpoint-*"))[-1] == "checkpoint-3"
    assert not list(run.glob(".*.partial"))
    listed = [json.loads(line) for line in (run / "non_finite.jsonl").read_text().splitlines()]
    assert 0 < len(listed) < 16, "of the second process alone"
    assert f"{len(listed)} of its 16 examples" in said
    assert {entry["loss"] for entry in listed} == {"inf"}


@pytest.mark.parametrize(
    ("meta", "fault", "tuning", "error"),
    [
        (
            "pass",
            "raise torch.OutOfMemoryError('CUDA out of memory. Tried')",
            "full",
            "the GPU ran out of memory: CUDA",
        ),
        (
            "if now[0] == 3 and not first: self.language_model.model.norm.weight.data += 1",
            "pass",
            "frozen",
            "step 4: 1 of 24 frozen weights have changed",
        ),
    ],
)
def test_a_fault_that_one_process_knows_of_is_said_by_it_and_ends_both(
    tmp_path: Path, meta: str, fault: str, tuning: str, error: str
) -> None:
    base = make_base(tmp_path / "base")
    said, run = train(tmp_path, meta, fault, model={"base": str(base), "tuning": tuning})
    assert said.count(f"error: {error}") == 1, said[-3000:]
    assert sorted(path.name for path in run.glob("checkpoint-*"))[-1] == "checkpoint-3"
