"""Handles SIGTERM and SIGINT: a run stops after the current step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sidtune.base.terminal import first_process, in_main_thread

ASKING = (signal.SIGTERM, signal.SIGINT)
# A launcher and the terminal may both pass on one Ctrl-C.
REPEATED_SECONDS = 1.0
KILLED = 128


class StopRequest:
    """Whether this process was asked to stop: the number of the signal, or 0.

    A second Ctrl-C ends the process at once; a second SIGTERM, which launchers send by themselves,
    does not.
    """

    def __init__(self) -> None:
        self.number, self.since = 0, 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if (
            self.number
            and number == signal.SIGINT
            and time.monotonic() - self.since > REPEATED_SECONDS
        ):
            raise SystemExit(KILLED + number)
        if self.number:
            return
        self.number, self.since = number, time.monotonic()
        if first_process():
            # Nothing buffered: whatever was interrupted may be in the middle of a line.
            name = signal.Signals(number).name
            os.write(
                2,
                f"\n{name}: stopping after this step, with a checkpoint; Ctrl-C again stops"
                " immediately\n".encode(),
            )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals in place of Python, which can be done from its first thread only."""
        if not in_main_thread():
            yield
            return
        before = {number: signal.signal(number, self) for number in ASKING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def outlive_signals(_: int) -> None:
    """Leave it to the parent when this worker of a loader ends: signals to the whole run must not
    end it first.

    The run would fail for want of its next step before it had saved the last one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_wait_for, args=[parent.pid], daemon=True).start()


def _wait_for(parent: int | None) -> None:
    """End when the parent says so."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
