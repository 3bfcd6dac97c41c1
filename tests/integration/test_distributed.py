"""Two processes with gloo on the CPU equal one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.tiny_data import tiny_tree
from tests.tiny_models import make_base

from sidtune.model.checkpoint_files import load_weights

STEADY = ("loss", "sid_next_loss", "eval_sid_next_loss", "eval_ndcg@10", "grad_norm", "learning_rate")


def launch(tree: dict[str, Any], folder: Path, processes: int, *options: str) -> subprocess.CompletedProcess[str]:
    file = folder / f"{Path(tree['output_dir']).name}.yaml"
    file.write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, "sidtune", "train", str(file), *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


def metrics(tree: dict[str, Any]) -> list[dict[str, float]]:
    lines = (Path(tree["output_dir"]) / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key in STEADY} for line in lines]


@pytest.mark.parametrize(
    ("tuning", "group_by", "ema", "loss"),
    [
        ("full", "example", None, {}),
        ("full", "user", 0.9, {}),
        ("frozen", "user", 0.9, {"over": "allowed", "margin": 1.0, "margin_beams": 1}),
    ],
)
def test_two_uneven_processes_equal_one(
    tmp_path: Path, tuning: str, group_by: str, ema: float | None, loss: dict[str, Any]
) -> None:
    """Steps of 15 over two ranks are uneven, and the last step of an epoch leaves one rank without an example."""
    make_base(tmp_path / "base", tied=False)
    shared: dict[str, Any] = {
        "model": {"base": str(tmp_path / "base"), "tuning": tuning},
        "tasks": {"sid_next": None, "item_feature": None, "title_to_sid": {"sample": 24}},
        "training": {"epochs": 2, "batch_size": 15, "learning_rate": 0.01, "group_by": group_by, "ema": ema},
        "eval": {"ranking": {"every": 1, "sample": 7, "beams": 10}},
        "loss": loss,
    }
    trees = [tiny_tree(tmp_path, output_dir=str(tmp_path / f"run{n}"), **shared) for n in (1, 2)]
    for processes, tree in enumerate(trees, start=1):
        done = launch(tree, tmp_path, processes)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (metrics(tree) for tree in trees)
    assert len(one) == len(two) > 10
    for left, right in zip(one, two, strict=True):
        assert right == pytest.approx(left, rel=2e-3, abs=1e-6)
    left, right = (load_weights(Path(tree["output_dir"]) / "final_checkpoint") for tree in trees)
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=2e-2, atol=2e-3)


def test_two_processes_resume_exactly(tmp_path: Path) -> None:
    """A copy of the folder as it was in the middle of an epoch goes on like the run it was taken from."""
    make_base(tmp_path / "base", "gpt2")
    shared: dict[str, Any] = {
        "tasks": {"sid_next": None, "title_to_sid": None},
        "training": {"epochs": 2, "batch_size": 15, "learning_rate": 0.01, "ema": 0.9},
        "eval": {"every": 3, "save_total_limit": 9},
    }
    whole, copy = (tiny_tree(tmp_path, output_dir=str(tmp_path / name), **shared) for name in ("whole", "copy"))
    assert launch(whole, tmp_path, 2).returncode == 0
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / "copy").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "whole" / name, tmp_path / "copy" / name)
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "copy" / "checkpoint-3")
    done = launch(copy, tmp_path, 2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Resuming from" in done.stdout
    assert metrics(copy) == metrics(whole)
    left, right = (load_weights(Path(tree["output_dir"]) / "final_checkpoint") for tree in (whole, copy))
    assert all(torch.equal(right[name], value) for name, value in left.items())
    refused = launch(copy, tmp_path, 1)
    assert "processes: 2 in the checkpoint, 1 now" in refused.stderr


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path: Path) -> None:
    done = launch(tiny_tree(tmp_path, training={"batch_size": 1}), tmp_path, 2)
    assert done.returncode != 0
    assert done.stderr.count("training.batch_size is 1, but there are 2 processes") == 1, "said once, by the first rank"


def test_processes_option_launches(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path, training={"max_steps": 2, "batch_size": 16})
    done = launch(tree, tmp_path, 1, "--processes", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "over 2 process(es)" in " ".join(done.stdout.split())
    assert (Path(tree["output_dir"]) / "final_checkpoint" / "model.safetensors").is_file()
