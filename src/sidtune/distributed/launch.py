"""Starts one process per GPU, or uses the first GPU only; never one process for several GPUs."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
import torch.distributed as dist

from sidtune.base.errors import UserError
from sidtune.base.signals import ASKING, KILLED
from sidtune.base.terminal import OWN_LAUNCHER, launched, warn

HOST = "127.0.0.1"
POLL_SECONDS = 0.1
# Processes whose peer died notice within seconds, or hang in a collective forever.
GRACE_SECONDS = 10.0
# Transformers' default `ddp_timeout`: other ranks wait while rank 0 reads or writes large files.
PATIENCE = datetime.timedelta(seconds=1800)


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `sidtune` with the given arguments in several processes of this machine; returns the exit
    status.

    Args:
        processes: at most one for each visible GPU; without GPUs they share the CPU.
        arguments: the command line after `sidtune`.
    """
    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise UserError(
            f"--processes {processes}, but only {gpus} GPUs are visible",
            f"Use --processes {gpus} or fewer.",
        )
    command = [sys.executable, "-m", "sidtune", *arguments]
    # Several processes with one thread per core each would be slower than one.
    shared = {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(_free_port()),
    }
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), OWN_LAUNCHER: "1"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return supervise(subprocess.Popen(command, env=shared | rank) for rank in ranks)


def supervise(starting: Iterable[subprocess.Popen[bytes]]) -> int:
    """Start the processes of a run, forward signals to them, and stop all of them if one fails.

    Args:
        starting: yields the processes, starting each one when it is requested.

    Returns:
        128 plus the signal number if a process was killed, else the highest exit status; 0 if none
        failed.
    """
    workers: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def pass_on(number: int, _: object) -> None:
        asked.append(number)
        for worker in workers:
            worker.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in ASKING}
    try:
        for worker in starting:
            workers.append(worker)
            if asked:
                worker.send_signal(asked[0])
        while all(worker.poll() in (None, 0) for worker in workers):
            if all(worker.returncode == 0 for worker in workers):
                return 0
            time.sleep(POLL_SECONDS)
        # Give the others time to report their own error and exit.
        until = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < until and any(worker.poll() is None for worker in workers):
            time.sleep(POLL_SECONDS)
        return _status([worker.returncode for worker in workers])
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _status(codes: Sequence[int | None]) -> int:
    """The run's exit status from those of its processes: None for one still running, -n for one
    killed by signal n.
    """
    killed = {rank: -code for rank, code in enumerate(codes) if code is not None and code < 0}
    for rank, number in killed.items():
        name = signal.Signals(number).name
        warn(
            f"process {rank} of {len(codes)} was killed by {name}, so the others were stopped; "
            "run the same command again to resume from the newest complete checkpoint"
        )
    return KILLED + next(iter(killed.values())) if killed else max(code or 0 for code in codes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def backend() -> str:
    """The library with which processes talk: NCCL between GPUs, otherwise gloo."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def join_after_restart() -> None:
    """After a torchrun restart on one machine, initialise the process group under keys of this
    attempt.

    torchrun's store still has the addresses of the previous attempt, and a rank that reads one
    waits for a dead process (https://github.com/pytorch/pytorch/issues/135712). Over several
    machines, attempts are not numbered consistently.
    """
    names = ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE", "GROUP_WORLD_SIZE")
    attempt, keeps_store, machines = map(os.environ.get, names)
    if (
        attempt in (None, "0")
        or keeps_store != str(True)
        or machines != "1"
        or dist.is_initialized()
    ):
        return
    stores: Any = dist  # whose exports are not declared for mypy
    store = stores.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
    )
    dist.init_process_group(
        backend(),
        store=stores.PrefixStore(f"attempt-{attempt}", store),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=PATIENCE,
    )


def warn_of_idle_gpus() -> None:
    """With several visible GPUs and one process, which uses the first, say once how to use all."""
    gpus = torch.cuda.device_count()
    if gpus > 1 and not launched():
        _say_idle(gpus)


@cache
def _say_idle(gpus: int) -> None:
    warn(f"using the first of {gpus} GPUs; --processes {gpus} uses all of them")
