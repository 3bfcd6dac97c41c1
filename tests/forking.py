"""Runs that start in no time, to be killed: forked from a process that has imported everything and
done nothing.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import yaml

# Seconds that a run may take: one that ends late on a busy machine is no fault.
PATIENCE = 300

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "sidtune.training.train",
        "sidtune.evaluation.evaluate",
        "transformers.models.qwen3.modeling_qwen3",
        "transformers.models.gpt2.modeling_gpt2",
        # Pyarrow imports it at its first array, where it is installed.
        "pandas",
        "tests.forking",
    ]
)


class Command:
    """A command of `sidtune` in a process of its own.

    Args:
        arguments: the command line after `sidtune`.
        log: what the process says goes here, behind what others said.
        largest_file: in bytes; a disk that is full at that size.
        environment: variables of the process. With EXAMPLES, the ids of the examples of every step
            go to that file; with DIES_AT, the process kills itself after that many steps; OPENING
            is Python to run at first.
    """

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        largest_file: int | None = None,
        **environment: str,
    ) -> None:
        self.log = log
        self.process: ForkServerProcess = _context.Process(
            target=_command, args=(arguments, str(log), largest_file, environment)
        )
        self.process.start()

    def ends(self) -> int | None:
        """The exit status, minus the signal that killed it."""
        if self.runs_for(PATIENCE):
            self.process.kill()
            raise AssertionError(f"does not end: {self.said()}")
        return self.process.exitcode

    def runs_for(self, seconds: float) -> bool:
        """Whether the process is alive after a while."""
        self.process.join(seconds)
        return self.process.exitcode is None

    def comes_to(self, step: int, tree: dict[str, Any]) -> None:
        """Wait until a step is logged."""
        metrics, until = Path(tree["output_dir"]) / "metrics.jsonl", time.monotonic() + PATIENCE
        while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
            assert self.process.is_alive(), self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(0.005)

    def said(self) -> str:
        """All of the log on one line."""
        return " ".join(self.log.read_text().split())

    def signal(self, number: int) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)


class Run(Command):
    """`sidtune train`, or another command that takes a configuration, in a process of its own.

    Args:
        tree: the configuration.
        options: of the command line.
    """

    def __init__(
        self,
        tree: dict[str, Any],
        log: Path,
        *options: str,
        command: str = "train",
        largest_file: int | None = None,
        **environment: str,
    ) -> None:
        file = log.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(tree))
        super().__init__([command, str(file), *options], log, largest_file, **environment)


def rank_environments(processes: int) -> list[dict[str, str]]:
    """The variables that a launcher sets for each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return [
        {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "CUDA_VISIBLE_DEVICES": "",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        for rank in range(processes)
    ]


def start_ranks(
    processes: int,
    tree: dict[str, Any],
    folder: Path,
    *options: str,
    command: str = "train",
    **environment: str,
) -> list[Run]:
    """The processes of one run, as a launcher would start them; a single one as a user would."""
    name = Path(tree["output_dir"]).name
    if processes == 1:
        return [Run(tree, folder / f"{name}.log", *options, command=command, **environment)]
    return [
        Run(
            tree,
            folder / f"{name}-rank{rank}.log",
            *options,
            command=command,
            **environment,
            **variables,
        )
        for rank, variables in enumerate(rank_environments(processes))
    ]


def recorded(file: Path) -> dict[int, list[int]]:
    """The ids of the examples of each step, of all processes that wrote into a file."""
    found: dict[int, list[int]] = {}
    for line in file.read_text().splitlines():
        step, examples = json.loads(line)
        found.setdefault(step, []).extend(examples)
    return {step: sorted(examples) for step, examples in found.items()}


def _command(
    arguments: list[str], log: str, largest_file: int | None, environment: dict[str, str]
) -> None:
    """In the forked process."""
    import torch

    from sidtune.commands.main import main

    # What was imported is no garbage, and takes long to look through.
    gc.freeze()
    # As in a process that was started by hand, for the workers of loaders.
    multiprocessing.set_start_method("fork", force=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.update(environment)
    if "OPENING" in environment:
        exec(environment["OPENING"], {})
    if "EXAMPLES" in environment:
        _record(environment["EXAMPLES"])
    if "DIES_AT" in environment:
        _die_after(int(environment["DIES_AT"]))
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    torch.set_num_threads(1)
    sys.argv = ["sidtune", *arguments]
    main()


def _record(file: str) -> None:
    """Write down which examples each training step is given."""
    from sidtune.batching.steps import Steps
    from sidtune.training.trainer import StepTrainer

    ordinary_item, ordinary_step = Steps.__getitem__, StepTrainer.training_step

    def with_ids(self: Steps, number: int) -> Any:
        return {**ordinary_item(self, number), "ids": self.share(number).tolist()}

    def recording(self: StepTrainer, model: Any, inputs: Any, *args: Any) -> Any:
        with open(file, "a") as record:
            record.write(json.dumps([self.state.global_step, inputs["ids"]]) + "\n")
        return ordinary_step(self, model, inputs, *args)

    Steps.__getitem__ = with_ids  # type: ignore[method-assign]
    StepTrainer.training_step = recording  # type: ignore[assignment,method-assign]


def _die_after(steps: int) -> None:
    from sidtune.training.trainer import StepTrainer

    ordinary = StepTrainer.training_step

    def dying(self: StepTrainer, *args: Any) -> Any:
        if self.state.global_step == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return ordinary(self, *args)

    StepTrainer.training_step = dying  # type: ignore[method-assign]
