"""Reading hostile files in a process of its own, which may neither crash, hang, grow, run anything
nor stray.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidtune.base.errors import UserError

SECONDS, MEGABYTES = 5.0, 1024
# On the clock, since what waits takes no processor time; a machine may be busy with other things.
WAITING = 30.0
# Blocked or lost in C code, where no signal reaches Python: this many seconds of silence.
SILENCE = 120
LONGEST_MESSAGE = 4000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
RUNS = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "pickle.find_class",
}
REACHES = {"socket.connect", "socket.getaddrinfo", "socket.bind"}
CHANGES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
}


class Fault(BaseException):
    """What a reader must never do; not an `Exception`, so that no reader catches it."""


@dataclass
class Outcome:
    """What became of the inputs of one reader.

    Args:
        accepted, refused: numbers of inputs.
        faults: seed and what happened.
        seconds, megabytes: the most that one input took, and that the process grew by.
    """

    accepted: int = 0
    refused: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0
    messages: Counter[str] = field(default_factory=Counter)


def outcome(read: Callable[[int, Path], Any], seeds: Iterable[int], folder: Path) -> Outcome:
    """Call `read` with each seed and a folder that it may read from and write to, in a forked
    process.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(read, list(seeds), folder, theirs))
    child.start()
    theirs.close()
    latest = -1
    try:
        while ours.poll(SILENCE):
            said = ours.recv()
            if isinstance(said, Outcome):
                return said
            latest = said
        return Outcome(faults=[(latest, f"no sign of life for {SILENCE} s")])
    except EOFError:
        child.join()
        return Outcome(faults=[(latest, f"the process died: exit status {child.exitcode}")])
    finally:
        child.kill()
        child.join()


def _child(read: Callable[[int, Path], Any], seeds: list[int], folder: Path, pipe: Any) -> None:
    guard = _Guard(folder)
    found = Outcome()
    os.chdir(folder)
    before = _peak(reset=True)
    for seed in seeds:
        pipe.send(seed)
        began = time.process_time()
        try:
            with guard.watching(), _limited():
                read(seed, folder)
            found.accepted += 1
        except UserError as error:
            found.refused += 1
            if len(str(error)) > LONGEST_MESSAGE:
                found.faults.append(
                    (seed, f"a message of {len(str(error)):,} characters: {str(error)[:200]}")
                )
        except BaseException:
            found.faults.append((seed, traceback.format_exc()[-3000:]))
        found.seconds = max(found.seconds, time.process_time() - began)
        if _peak() - before > MEGABYTES:
            found.faults.append((seed, f"the process grew by {_peak() - before:.0f} MB"))
            before = _peak(reset=True)
        found.megabytes = max(found.megabytes, _peak() - before)
        if (folder / "canary").exists():
            found.faults.append((seed, "code was run"))
    pipe.send(found)


class _Guard:
    """Python's audit events of everything that runs, reaches out or writes outside a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on = str(folder.resolve()), False
        sys.addaudithook(self._hook)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False

    def _hook(self, event: str, details: tuple[Any, ...]) -> None:
        if not self.on:
            return
        # Libraries compile text of their own when they are first used; files in the folder are
        # nobody's code.
        code = getattr(details[0], "co_filename", "") if event == "exec" else ""
        ran = event in RUNS or (os.path.isabs(code) and self._inside(code))
        wrote = (
            event == "open"
            and isinstance(details[2], int)
            and details[2] & WRITING
            and details[0] != os.devnull
        )
        if ran or event in REACHES:
            raise Fault(f"{event} {details!r:.300}")
        if (wrote or event in CHANGES) and not all(
            map(self._inside, details[: 2 if event == "os.rename" else 1])
        ):
            raise Fault(f"{event} outside the folder: {details!r:.300}")
        if event == "open" and "passwd" in str(details[0]):
            raise Fault(f"read outside the folder: {details!r:.300}")

    def _inside(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True
        return Path(os.path.realpath(os.fsdecode(path))).is_relative_to(self.folder)


@contextmanager
def _limited() -> Iterator[None]:
    """Interrupt what takes more than its seconds of processor time, or waits."""

    def stop(*_: Any) -> None:
        raise Fault(f"more than {SECONDS:.0f} s, or waiting for {WAITING:.0f} s")

    timers = {
        signal.ITIMER_PROF: (signal.SIGPROF, SECONDS),
        signal.ITIMER_REAL: (signal.SIGALRM, WAITING),
    }
    for timer, (number, seconds) in timers.items():
        signal.signal(number, stop)
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)


def _peak(reset: bool = False) -> float:
    """Most memory that this process held since the last reset, in MB; outside Linux
    since it began.
    """
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
