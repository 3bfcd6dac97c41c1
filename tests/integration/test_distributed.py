"""Two processes with gloo on the CPU equal one process."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.forking import start_ranks
from tests.tiny_data import tiny_tree
from tests.tiny_models import make_base

from sidtune.files.weight_files import load_weights

DRAWING = """
import torch
from sidtune.training.trainer import StepTrainer

step = StepTrainer.training_step

def drawing(self, *args):
    print("draws", torch.rand(1).item(), flush=True)
    return step(self, *args)

StepTrainer.training_step = drawing
"""
STEADY = (
    "loss",
    "sid_next_loss",
    "eval_sid_next_loss",
    "eval_ndcg@10",
    "grad_norm",
    "learning_rate",
)


def metrics(tree: dict[str, Any]) -> list[dict[str, float]]:
    lines = (Path(tree["output_dir"]) / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key in STEADY} for line in lines
    ]


@pytest.mark.parametrize(
    ("tuning", "group_by", "loss"),
    [
        ("full", "example", {}),
        pytest.param("full", "user", {}, marks=pytest.mark.long),
        ("frozen", "user", {"over": "allowed"}),
    ],
)
def test_two_uneven_processes_equal_one(
    tmp_path: Path, tuning: str, group_by: str, loss: dict[str, Any]
) -> None:
    """Steps of 15 over two ranks are uneven, and the last step of an epoch leaves one rank without
    an example.
    """
    make_base(tmp_path / "base", tied=False)
    shared: dict[str, Any] = {
        "model": {"base": str(tmp_path / "base"), "tuning": tuning},
        "tasks": {"sid_next": None, "item_feature": None, "title_to_sid": {"sample": 24}},
        "training": {
            "epochs": 2,
            "batch_size": 15,
            "learning_rate": 0.01,
            "group_by": group_by,
        },
        "eval": {"ranking": {"every": 1, "sample": 7, "beams": 10}},
        "loss": loss,
    }
    trees = [tiny_tree(tmp_path, output_dir=str(tmp_path / f"run{n}"), **shared) for n in (1, 2)]
    for processes, tree in enumerate(trees, start=1):
        assert [rank.ends() for rank in start_ranks(processes, tree, tmp_path)] == [0] * processes
    one, two = (metrics(tree) for tree in trees)
    assert len(one) == len(two) > 10
    for left, right in zip(one, two, strict=True):
        assert right == pytest.approx(left, rel=2e-3, abs=1e-6)
    left, right = (load_weights(Path(tree["output_dir"]) / "final_checkpoint") for tree in trees)
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=2e-2, atol=2e-3)


def test_processes_do_not_draw_the_same(tmp_path: Path) -> None:
    """Or dropout would hit the same places of different examples."""
    ranks = start_ranks(
        2, tiny_tree(tmp_path, training={"max_steps": 1}), tmp_path, OPENING=DRAWING
    )
    assert [rank.ends() for rank in ranks] == [0, 0]
    drawn = [re.findall(r"draws (0\.\d+)", rank.said()) for rank in ranks]
    assert len(drawn[0]) == len(drawn[1]) == 1
    assert drawn[0] != drawn[1]


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path: Path) -> None:
    ranks = start_ranks(2, tiny_tree(tmp_path, training={"batch_size": 1}), tmp_path)
    assert ranks[0].ends() == 2
    assert ranks[1].ends(), "by itself, or since the first has gone"
    told = ["training.batch_size is 1, but there are 2 processes" in rank.said() for rank in ranks]
    assert told == [True, False], "said once, by the first rank"
