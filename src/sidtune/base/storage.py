"""Durable writes, and error messages for failed writes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors

from sidtune.base.errors import UserError

GIB = 2**30
# A disk or a quota is full. Other numbers speak of rights, names, folders that are gone or devices.
MATTERS_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems, such as those of networks, cannot wait for a folder.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def flush_all(folder: Path, but: Container[str] = ()) -> None:
    """Wait until a folder and everything in it are on disk.

    Args:
        but: names of files that are already.
    """
    for path in (*folder.rglob("*"), folder):
        if path.relative_to(folder).as_posix() not in but:
            flush(path)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text, as `replacing` does."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path, needed: int = 0) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` at the end of the block: whoever reads
    it, and whatever dies, finds the old file or the new one.

    Args:
        needed: as in `refusing_failed_writes`.

    Raises:
        UserError: where it cannot be written; the old file stays then.
    """
    with refusing_failed_writes(path, needed):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        aside = Path(name)
        try:
            yield aside
            os.chmod(aside, _mode(path))
            flush(aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        flush(path.parent)


@contextmanager
def new_folder(folder: Path, needed: int = 0) -> Iterator[Path]:
    """A folder to write to, which gets its name, new or that of an empty folder, at the end of the
    block; nothing is left of a block that fails.

    Args:
        needed: as in `refusing_failed_writes`.

    Raises:
        UserError: where it cannot be written, or files came to that folder during the block.
    """
    with refusing_failed_writes(folder, needed):
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            os.chmod(aside, 0o777 & ~_umask())
            yield aside
            flush_all(aside)
            _name(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        flush(folder.parent)


def _name(aside: Path, folder: Path) -> None:
    """Give a folder its name, which must be that of no folder or of an empty one."""
    try:
        os.rename(aside, folder)
    except OSError as error:
        # POSIX names either for a folder that is not empty.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UserError(
                f"{folder} was empty or missing, and another program wrote to it meanwhile",
                "Its files were left as they are. Use them, or choose another folder.",
            ) from None
        raise


@contextmanager
def refusing_failed_writes(target: Path, needed: int = 0) -> Iterator[None]:
    """Turn what writers raise where a disk is full, or a file cannot be written, into a
    `UserError`.

    Args:
        target: what is being written.
        needed: about how many bytes it takes, where that is worth saying.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        # Writers that are not Python's give no number.
        if getattr(error, "errno", None) not in {None, *MATTERS_OF_SPACE}:
            raise UserError(
                f"{target} could not be written: {reason}",
                "Choose a folder that can be written, or make this one so, and run the same command"
                " again.",
            ) from None
        size = f" It needs about {needed / GIB:.3g} GiB." if needed else ""
        there = next(folder for folder in target.absolute().parents if folder.exists())
        free = shutil.disk_usage(there).free / GIB
        raise UserError(
            f"{target} could not be written: {reason}.{size} {free:.3g} GiB are free there",
            "Free disk space, then run the same command again to resume; or choose another"
            " output_dir.",
        ) from None


def _reason(error: Exception) -> str | None:
    """Why a write failed, or None for errors that are no failed writes."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UserError):
        return None
    text = str(error)
    if "inline_container" in text:
        # torch's own writer, which swallows the reason.
        return "only a part was written"
    # Writers in Rust speak of a failed system call so.
    if isinstance(error, safetensors.SafetensorError) or "os error" in text:
        return text.splitlines()[0][:200]
    return None


def _mode(path: Path) -> int:
    """What `open` would leave a file that is written with."""
    if path.is_file() and not path.is_symlink():
        return path.stat().st_mode & 0o777
    return 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
