"""One run at a time in an output folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidtune.base.errors import UserError
from sidtune.base.storage import refusing_failed_writes
from sidtune.base.terminal import visible, warn

LOCK = ".lock"
HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, creating it if needed, until the context or the process ends.

    The kernel releases the lock however its process dies, so a leftover file does no harm. It is a
    POSIX record lock: forked processes, such as loader workers, do not inherit it.

    Raises:
        UserError: where another process holds it, or the folder cannot be written.
    """
    with refusing_failed_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if (folder / LOCK).is_symlink():
        raise UserError(f"{folder / LOCK} is a link", "Delete it; the run creates its own file.")
    with refusing_failed_writes(folder / LOCK):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        _take(folder, descriptor)
        # The holder's name is only for the error message; on a full disk the lock works without it.
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(folder: Path, descriptor: int) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            warn(
                f"{folder} cannot be locked ({error.strerror}): make sure that no other run writes"
                " there"
            )
            return
        holder = (
            visible(os.pread(descriptor, 200, 0).decode(errors="replace").strip())
            or "another process"
        )
        raise UserError(
            f"output_dir {folder} is in use by {holder}",
            "Wait for that run to end, or choose another output_dir.",
        ) from None
