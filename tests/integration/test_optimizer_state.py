"""Runs whose optimizer's state is held in few bits or in main memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.test_sharded import dies, equal_up_to_rounding, run, tree_of
from tests.running import same_result
from tests.tiny_models import make_base

# What each process holds when a run ends.
WATCHED = """
import torch
from torch.distributed.tensor import DTensor
from sidtune.training.trainer import StepTrainer

train = StepTrainer.train

def watching(self, *args, **kwargs):
    result = train(self, *args, **kwargs)
    values = [v for one in self.optimizer.state.values() for v in one.values() if v.dim()]
    for value in values:
        print("holds", str(value.dtype), type(value).__name__)
    return result

StepTrainer.train = watching
"""


def test_offloading_changes_no_bit_whenever_it_begins(tmp_path: Path) -> None:
    """A run that is killed goes on with its state in the other place."""
    make_base(tmp_path / "base")
    here = tree_of(tmp_path, "here")
    there = tree_of(tmp_path, "there", training={"offload_optimizer": True})
    moved = tree_of(tmp_path, "moved")
    run(1, here, tmp_path)
    run(1, there, tmp_path)
    same_result(there, here)
    dies(1, moved, tmp_path, 5)
    moved["training"]["offload_optimizer"] = True
    run(1, moved, tmp_path)
    same_result(moved, here)


@pytest.mark.parametrize(
    ("kind", "offload", "processes", "tuning"),
    [
        ("bf16", True, 1, "lora"),
        pytest.param("8bit", False, 2, "full", marks=pytest.mark.long),
        pytest.param("bf16", False, 2, "full", marks=pytest.mark.long),
        pytest.param("8bit", True, 1, "full", marks=pytest.mark.long),
        pytest.param("bf16", False, 1, "frozen", marks=pytest.mark.long),
    ],
)
def test_a_killed_run_ends_as_if_left_alone(
    tmp_path: Path, kind: str, offload: bool, processes: int, tuning: str
) -> None:
    if kind == "8bit":
        pytest.importorskip("bitsandbytes")
    make_base(tmp_path / "base", width=64)
    training = {"optimizer_state": kind, "offload_optimizer": offload}
    options: dict[str, Any] = {"training": training, "model": {"tuning": tuning}}
    whole, broken = (tree_of(tmp_path, name, **options) for name in ("whole", "broken"))
    said = run(processes, whole, tmp_path, OPENING=WATCHED)
    dtype = "torch.uint8" if kind == "8bit" else "torch.bfloat16"
    assert all(f"holds {dtype} Tensor" in each for each in said)
    assert ("no effect on the memory of a training on a CPU" in said[0]) == offload
    dies(processes, broken, tmp_path, 5)
    run(processes, broken, tmp_path)
    same_result(broken, whole)


@pytest.mark.parametrize(
    ("kind", "offload"),
    [
        ("8bit", True),
        pytest.param("8bit", False, marks=pytest.mark.long),
        pytest.param("bf16", False, marks=pytest.mark.long),
        pytest.param("bf16", True, marks=pytest.mark.long),
        pytest.param("fp32", True, marks=pytest.mark.long),
    ],
)
def test_shards_of_the_state_resume_to_the_bit_and_by_other_processes(
    tmp_path: Path, kind: str, offload: bool
) -> None:
    if kind == "8bit":
        pytest.importorskip("bitsandbytes")
    make_base(tmp_path / "base", width=64)

    def tree(name: str, distributed: str = "fsdp2") -> dict[str, Any]:
        training = {"optimizer_state": kind, "offload_optimizer": offload}
        return tree_of(tmp_path, name, distributed, training=training)

    one, whole, broken, moved = tree("one", "auto"), tree("whole"), tree("broken"), tree("moved")
    run(1, one, tmp_path)
    said = run(2, whole, tmp_path, OPENING=WATCHED)
    held = {"8bit": "uint8", "bf16": "bfloat16", "fp32": "float32"}[kind]
    assert all(f"holds torch.{held} DTensor" in each for each in said)
    if kind != "bf16":
        # Which rounds shards with other noise than the whole.
        equal_up_to_rounding(whole, one)
    dies(2, broken, tmp_path, 5)
    run(2, broken, tmp_path)
    same_result(broken, whole)
    dies(2, moved, tmp_path, 5)
    run(1, moved, tmp_path, "--allow-other-processes")
    if kind != "bf16":
        equal_up_to_rounding(moved, one)


def test_bfloat16_moments_lie_in_the_checkpoint_as_they_are_held(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    tree = tree_of(tmp_path, "run", training={"optimizer_state": "bf16"})
    run(1, tree, tmp_path)
    saved = torch.load(tmp_path / "run" / "checkpoint-9" / "optimizer.pt", weights_only=True)
    for state in saved["state"].values():
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.bfloat16
        assert float(state["step"]) == 9
