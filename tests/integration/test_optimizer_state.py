"""Runs whose optimizer's state is held in few bits or in main memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.test_sharded import dies, equal_up_to_rounding, run, tree_of
from tests.integration.test_stages import staged
from tests.running import dies as crashes
from tests.running import metrics, same_result
from tests.tiny_models import make_base

from sidtune.files.weight_files import load_weights
from sidtune.runs.checkpoints import FINAL
from sidtune.runs.schedule import stage_runs
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer

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


@pytest.mark.parametrize("kind", ["bf16", pytest.param("8bit", marks=pytest.mark.long)])
def test_every_stage_holds_its_state_so_and_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "8bit":
        pytest.importorskip("bitsandbytes")
    base = make_base(tmp_path / "base", width=64)
    held, ordinary = list[tuple[str, set[torch.dtype]]](), StepTrainer.train

    def watching(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        result = ordinary(self, *args, **kwargs)
        state = [value for one in self.optimizer.state.values() for value in one.values()]
        held.append((self.run.name, {value.dtype for value in state if value.dim()}))
        return result

    monkeypatch.setattr(StepTrainer, "train", watching)
    stages = [
        {"tuning": "frozen", "steps": 4, "learning_rate": 0.05},
        {"tuning": "lora", "steps": 4},
        {"tuning": "full", "steps": 4},
    ]
    training = {"workers": 0, "optimizer_state": kind, "offload_optimizer": True}
    whole, broken = (
        staged(
            tmp_path,
            stages,
            model={"base": str(base)},
            training=training,
            output_dir=str(tmp_path / name),
        )
        for name in ("whole", "broken")
    )
    train(whole)
    assert [name for name, _ in held] == ["stage-1", "stage-2", "whole"]
    expected = torch.uint8 if kind == "8bit" else torch.bfloat16
    # Weights with few values, such as rows and adapters here, stay in float32 instead of 8 bits.
    assert all(expected in dtypes for _, dtypes in (held[-1:] if kind == "8bit" else held))
    for folder in ("stage-1", "stage-2", "."):
        crashes(broken, 3, broken.output_dir / folder)
    train(broken)
    for mine, other in zip(stage_runs(broken), stage_runs(whole), strict=True):
        assert metrics(mine) == metrics(other)
        left, right = (load_weights(one.output_dir / FINAL) for one in (mine, other))
        assert left.keys() == right.keys()
        assert all(torch.equal(right[name], value) for name, value in left.items())


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
