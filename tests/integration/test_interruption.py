"""Runs that are asked to stop, meet another run, change their processes, lose one of them, or find
the disk full.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.forking import PATIENCE, Run, recorded, start_ranks
from tests.running import metrics, same_result
from tests.tiny_data import tiny_tree

from sidtune.runs.checkpoints import FINAL, checkpoints, damage, step_of
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config


def small(folder: Path, name: str, every: int = 1000, **training: Any) -> dict[str, Any]:
    """Forty steps with dropout, three an epoch, evaluated at the end alone."""
    return tiny_tree(
        folder,
        output_dir=str(folder / name),  # type: ignore[arg-type]
        model={"residual_dropout": 0.1},
        tasks={"sid_next": None},
        training={"max_steps": 40, "batch_size": 15, "learning_rate": 0.01, **training},
        eval={"every": every},
    )


def saved(tree: dict[str, Any]) -> list[int]:
    """Steps of the checkpoints, all of which are complete, newest first; nothing half written lies
    beside them.
    """
    folder = Path(tree["output_dir"])
    assert not [path.name for path in folder.glob(".checkpoint*")]
    found = checkpoints(folder)
    assert [damage(checkpoint) for checkpoint in found] == [None] * len(found)
    return [step_of(checkpoint) for checkpoint in found]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, base, and two runs that were left alone: `whole` by one process and `whole2` by two."""
    folder = tmp_path_factory.mktemp("shop")
    assert Run(small(folder, "whole"), folder / "whole.log").ends() == 0
    assert [rank.ends() for rank in start_ranks(2, small(folder, "whole2"), folder)] == [0, 0]
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_exactly(shop: Path, number: int) -> None:
    """The signal goes to the workers of its loader as well, as that of a terminal does."""
    name = signal.Signals(number).name
    tree = small(shop, name, workers=1)
    run = Run(tree, shop / f"{name}.log")
    run.comes_to(4, tree)
    for process in [*psutil.Process(run.process.pid).children(), psutil.Process(run.process.pid)]:
        process.send_signal(number)
    assert run.ends() == 75, run.said()
    (step,) = saved(tree)
    assert 4 <= step < 40
    assert f"Stopped by {name} after step {step} of 40; the checkpoint is saved." in run.said()
    assert "Traceback" not in run.said()
    again = Run(tree, shop / f"{name}2.log")
    assert again.ends() == 0
    assert f"checkpoint-{step}." in again.said()
    same_result(tree, small(shop, "whole"))


@pytest.fixture(scope="module")
def alone(shop: Path) -> dict[str, Any]:
    """Of two processes that were left alone, with checkpoints on the way."""
    tree = small(shop, "alone", every=4)
    assert [rank.ends() for rank in start_ranks(2, tree, shop)] == [0, 0]
    return tree


def test_two_processes_stop_at_one_step_though_one_is_asked(shop: Path) -> None:
    tree = small(shop, "stopped2")
    ranks = start_ranks(2, tree, shop)
    ranks[0].comes_to(3, tree)
    ranks[1].signal(signal.SIGTERM)
    assert [rank.ends() for rank in ranks] == [75, 75]
    assert len(saved(tree)) == 1
    assert [rank.ends() for rank in start_ranks(2, tree, shop)] == [0, 0]
    same_result(tree, small(shop, "whole2"))


def test_a_run_that_loses_a_process_ends_and_goes_on_exactly(
    shop: Path, alone: dict[str, Any]
) -> None:
    tree = small(shop, "lost", every=4)
    ranks = start_ranks(2, tree, shop)
    ranks[0].comes_to(9, tree)
    ranks[1].signal(signal.SIGKILL)
    assert ranks[0].ends() == 1
    assert "another process of this run has ended" in ranks[0].said()
    assert "Traceback" not in ranks[0].said()
    assert saved(tree)
    assert [rank.ends() for rank in start_ranks(2, tree, shop)] == [0, 0]
    same_result(tree, alone)


def test_another_number_of_processes_sees_each_example_once(shop: Path) -> None:
    """From one to two, in the middle of an epoch, and back; only when asked for."""
    tree, file = small(shop, "changing", workers=0), shop / "changing.jsonl"
    run = Run(tree, shop / "changing.log", EXAMPLES=str(file))
    run.comes_to(4, tree)
    run.signal(signal.SIGTERM)
    assert run.ends() == 75
    (first,) = saved(tree)
    ranks = start_ranks(2, tree, shop)
    assert [rank.ends() for rank in ranks] == [2, 2]
    assert "processes: 1 in the checkpoint, 2 now" in ranks[0].said()
    assert "add --allow-other-processes" in ranks[0].said()
    ranks = start_ranks(2, tree, shop, "--allow-other-processes", EXAMPLES=str(file))
    ranks[0].comes_to(first + 4, tree)
    ranks[0].signal(signal.SIGTERM)
    assert [rank.ends() for rank in ranks] == [75, 75]
    (second,) = saved(tree)
    last = Run(tree, shop / "changing2.log", "--allow-other-processes", EXAMPLES=str(file))
    assert last.ends() == 0
    assert first + 4 <= second < 40
    whole = small(shop, "recorded", workers=0)
    assert Run(whole, shop / "recorded.log", EXAMPLES=str(shop / "recorded.jsonl")).ends() == 0
    seen = recorded(file)
    assert seen == recorded(shop / "recorded.jsonl")
    for epoch in range(13):
        steps = range(3 * epoch, 3 * epoch + 3)
        assert sorted(example for step in steps for example in seen[step]) == list(range(36))
    assert (Path(tree["output_dir"]) / FINAL).is_dir()
    assert len(metrics(parse_config(tree, "test"))) == len(metrics(parse_config(whole, "test")))


def test_allowing_other_processes_without_resuming_is_refused(shop: Path) -> None:
    run = Run(
        small(shop, "idle"), shop / "idle.log", "--allow-other-processes", "--resume", "never"
    )
    assert run.ends() == 2
    assert "--allow-other-processes has no effect with --resume never" in run.said()


def test_two_runs_into_one_folder(shop: Path) -> None:
    """The second is refused while the first lives, and takes over the moment it is dead."""
    tree = small(shop, "shared", every=3, workers=1)
    first = Run(tree, shop / "shared1.log")
    first.comes_to(4, tree)
    first.signal(signal.SIGSTOP)
    second = Run(tree, shop / "shared2.log")
    assert second.ends() == 2
    assert f"in use by process {first.process.pid} on " in second.said()
    first.signal(signal.SIGKILL)
    assert first.ends() == -signal.SIGKILL
    third = Run(tree, shop / "shared3.log")
    assert third.ends() == 0, third.said()
    assert "Resuming from" in third.said()


def test_files_that_may_not_grow(shop: Path) -> None:
    """The limit stands for a full disk: the optimizer's state does not fit."""
    tree = small(shop, "limited")
    run = Run(tree, shop / "limited1.log")
    run.comes_to(4, tree)
    run.signal(signal.SIGTERM)
    assert run.ends() == 75
    before = saved(tree)
    full = Run(tree, shop / "limited2.log", largest_file=150_000)
    assert full.ends() == 2
    assert ".checkpoint-40.partial could not be written: only a part was written" in full.said()
    assert "It needs about 0.0" in full.said()
    assert "GiB are free there" in full.said()
    assert "Traceback" not in full.said()
    assert saved(tree) == before
    assert Run(tree, shop / "limited3.log").ends() == 0
    same_result(tree, small(shop, "whole"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own in memory, where that may be made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=750k", "none", str(disk)], capture_output=True
    )
    if made.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(shop: Path, small_disk: Path) -> None:
    """There is room for one checkpoint, and not for the second, which is written before the first
    goes.
    """
    alone, tree = small(shop, "roomy", every=4), small(shop, "full", every=4)
    tree["output_dir"] = str(small_disk / "run")
    assert Run(alone, shop / "roomy.log").ends() == 0
    run = Run(tree, shop / "full.log")
    assert run.ends() == 2, run.said()
    assert "checkpoint-8.partial could not be written" in run.said()
    assert "Traceback" not in run.said()
    assert saved(tree) == [4]
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    assert Run(tree, shop / "full2.log").ends() == 0
    same_result(tree, alone)


# --- real launchers ---


def start(
    folder: Path, tree: dict[str, Any], *launcher: str, options: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    file = folder / "launched.yaml"
    file.write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", *launcher, "sidtune", "train", str(file), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def rank_of(launcher: subprocess.Popen[str], number: int) -> psutil.Process:
    """A process that a launcher started; loaders' workers are not among its children."""
    for child in psutil.Process(launcher.pid).children():
        if child.environ().get("RANK") == str(number):
            return child
    raise AssertionError(f"no process {number}")


def wait_for_checkpoint(tree: dict[str, Any], launcher: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while not checkpoints(Path(tree["output_dir"])):
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.long
def test_our_launcher_stops_the_others_and_says_what_happened(shop: Path) -> None:
    tree = small(shop, "launched", every=4)
    launcher = start(shop, tree, options=("--processes", "2"))
    wait_for_checkpoint(tree, launcher)
    left = rank_of(launcher, 0)
    rank_of(launcher, 1).kill()
    output, said = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 137
    assert "over 2 processes" in " ".join(output.split())
    assert "process 1 of 2 was killed by SIGKILL, so the others were stopped" in " ".join(
        said.split()
    )
    assert not left.is_running()


@pytest.mark.long
def test_torchrun_starts_again_and_goes_on_by_itself(shop: Path, alone: dict[str, Any]) -> None:
    tree = small(shop, "restarted", every=4)
    torchrun = (
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--max-restarts=1",
        "-m",
    )
    launcher = start(shop, tree, *torchrun)
    wait_for_checkpoint(tree, launcher)
    rank_of(launcher, 1).kill()
    output, said = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 0, said
    assert "Resuming from" in output
    same_result(tree, alone)


def by_loss(config: Config) -> list[int]:
    """The steps that a run has evaluated, but the start; the best first."""
    losses = {
        entry["step"]: entry["eval_sid_next_loss"]
        for entry in metrics(config)
        if "eval_sid_next_loss" in entry
    }
    return sorted((step for step in losses if step), key=lambda step: losses[step])


def test_a_damaged_best_checkpoint_gives_way_to_the_best_that_is_left(shop: Path) -> None:
    """A run whose steps grow until it unlearns: its best checkpoint is an early one, damaged while
    it is dead.
    """
    tree = small(shop, "flipped", every=4, learning_rate=3.0, warmup=40)
    tree["eval"]["save_total_limit"] = 99
    assert Run(tree, shop / "flipped.log", DIES_AT="26").ends() == -signal.SIGKILL
    config = parse_config(tree, "test")
    best, second = by_loss(config)[:2]
    assert best != 24, "the run would go on from an earlier one"
    weights = config.output_dir / f"checkpoint-{best}" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(bytes(content))
    again = Run(tree, shop / "flipped2.log")
    assert again.ends() == 0, again.said()
    lost = (
        f"checkpoint-{best}, the best checkpoint so far, cannot be used: model.safetensors has"
        " changed"
    )
    assert lost in again.said()
    assert f"step {second} is the best of the others" in again.said()
    chosen = next(step for step in by_loss(config) if step != best)
    assert f"best by loss at step {chosen}:" in again.said()
