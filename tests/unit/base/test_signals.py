"""A request to stop is taken once; workers of loaders outlive it; the launcher passes it on and
reports the worst.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerControl, TrainerState, TrainingArguments

from sidtune.base.errors import Interrupted
from sidtune.base.signals import REPEATED_SECONDS, StopRequest, outlive_signals
from sidtune.distributed import launch
from sidtune.training.guards.interruption import StopWhenAsked


def test_the_first_signal_is_remembered_and_handlers_come_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    request = StopRequest()
    with request.listening():
        assert request.number == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        assert request.number == signal.SIGTERM, "one Ctrl-C may come by way of the launcher, too"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert "SIGTERM: stopping after this step" in capfd.readouterr().err


def test_a_second_ctrl_c_ends_at_once_and_a_second_sigterm_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request, now = StopRequest(), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    request(signal.SIGINT, None)
    now[0] += REPEATED_SECONDS / 2
    request(signal.SIGINT, None)
    now[0] += REPEATED_SECONDS
    request(signal.SIGTERM, None)
    with pytest.raises(SystemExit) as end:
        request(signal.SIGINT, None)
    assert end.value.code == 130


def test_only_the_first_thread_listens() -> None:
    heard: list[int] = []

    def listen() -> None:
        with StopRequest().listening():
            heard.append(1)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [1]


class Slow(Dataset[int]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> int:
        time.sleep(0.01)
        return index


@pytest.mark.skipif(sys.platform != "linux", reason="who sent a signal is told on Linux alone")
def test_workers_of_loaders_are_ended_by_their_parent_alone() -> None:
    loader = DataLoader(
        Slow(),
        batch_size=None,
        num_workers=1,
        worker_init_fn=outlive_signals,
        persistent_workers=True,
    )
    items = iter(loader)
    assert next(items) == 0
    (worker,) = items._workers  # type: ignore[attr-defined]
    for number in (signal.SIGINT, signal.SIGTERM):
        # By another process, as the terminal, torchrun or a scheduler do.
        subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
    assert list(items) == list(range(1, 40))
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


def workers(*programs: str) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, "-c", program]) for program in programs]


SLEEP = "import time; time.sleep(600)"
KILLED = "import os; open('killed', 'w').close(); os.kill(os.getpid(), 9)"
AFTER = """
import os, time
while not os.path.exists("killed"):
    time.sleep(0.01)
raise SystemExit(1)
"""


@pytest.mark.parametrize(
    ("programs", "status", "said"),
    [
        (["", ""], 0, ""),
        (["raise SystemExit(2)", "raise SystemExit(1)"], 2, ""),
        (["raise SystemExit(75)", "raise SystemExit(75)"], 75, ""),
        (["raise SystemExit(3)", SLEEP], 3, ""),
        (
            [AFTER, KILLED, SLEEP],
            137,
            "process 1 of 3 was killed by SIGKILL, so the others were stopped",
        ),
    ],
    ids=["well", "refused", "asked to stop", "failed and hanging", "killed"],
)
def test_the_launcher_ends_with_the_first_that_fails(
    programs: list[str],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # Where all end by themselves, none is stopped, however slow the machine is.
    monkeypatch.setattr(launch, "GRACE_SECONDS", 1.0 if SLEEP in programs else 60.0)
    running = workers(*programs)
    assert launch.supervise(running) == status
    assert all(worker.returncode is not None for worker in running)
    assert said in " ".join(capfd.readouterr().err.split())


def test_a_signal_while_the_launcher_starts_ends_all(tmp_path: Path) -> None:
    """Those that were started before it, and those after."""

    def starting() -> Iterator[subprocess.Popen[bytes]]:
        for number in range(2):
            yield subprocess.Popen([sys.executable, "-c", SLEEP])
            if not number:
                os.kill(os.getpid(), signal.SIGTERM)

    assert launch.supervise(starting()) == 128 + signal.SIGTERM


def test_a_run_that_is_asked_while_it_saves_ends_with_that_checkpoint() -> None:
    request, state, control = (
        StopRequest(),
        TrainerState(global_step=4, max_steps=9),
        TrainerControl(),
    )
    stopping, arguments = StopWhenAsked(request), TrainingArguments(use_cpu=True)
    stopping.on_step_end(arguments, state, control)
    stopping.on_save(arguments, state, control)
    request.number = signal.SIGTERM
    with pytest.raises(Interrupted, match="Stopped by SIGTERM after step 4 of 9"):
        stopping.on_save(arguments, state, control)


def test_the_launcher_passes_signals_on_and_waits(tmp_path: Path) -> None:
    """The run ends when its processes have saved, not before."""
    program = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(0.5); pathlib.Path(sys.argv[1]).touch(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "pathlib.Path(sys.argv[1] + '.ready').touch()\n"
        "time.sleep(600)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / name)])
        for name in ("a", "b")
    ]

    def ask() -> None:
        while len(list(tmp_path.glob("*.ready"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask).start()
    assert launch.supervise(running) == 75
    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()
