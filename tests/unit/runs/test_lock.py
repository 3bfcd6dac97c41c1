"""An output folder has one run at a time, and the death of a run opens it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidtune.base.errors import UserError
from sidtune.runs.lock import LOCK, locked

# Forks a child that lives on, as loaders do.
HOLDER = """
import os, sys, time
from pathlib import Path
from sidtune.runs.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork():
        print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_is_refused_and_death_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=f"in use by process {holder.pid} on "), locked(folder):
        pass
    holder.kill()
    holder.wait()
    with locked(folder):
        assert (folder / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    os.killpg(holder.pid, signal.SIGKILL)
    with locked(folder):
        pass


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", without)
    with locked(tmp_path):
        pass
    assert "cannot be locked (No locks available)" in " ".join(capsys.readouterr().err.split())


def test_a_full_disk_has_room_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file holds only who has it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == ""


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="run could not be written: Not a directory"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="is a link"), locked(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "years of work"
