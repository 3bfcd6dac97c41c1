"""Files of weights that training does not change: written once per process, then hard-linked."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sidtune.base.hashing import file_digest
from sidtune.base.storage import flush
from sidtune.files.weight_files import weights_in

Stamp = tuple[int, int, int, int]


class Written(NamedTuple):
    """A file of known content: this process wrote it, or verified its checksum.

    Args:
        path: of the file.
        sha256: of its content.
        stamp: device, inode, size and modification time; if any differs, the content may have
            changed.
        names: of the weights in it.
    """

    path: Path
    sha256: str
    stamp: Stamp
    names: frozenset[str]


class Unchanged:
    """The files of unchanged weights in this process's newest checkpoint."""

    def __init__(self) -> None:
        self.files: list[Written] = []

    @property
    def bytes(self) -> int:
        """Bytes that the next checkpoint need not write; the last file has the weights that
        change.
        """
        return sum(file.stamp[2] for file in self.files[:-1])

    def remember(
        self, checkpoint: Path, manifest: Mapping[str, Mapping[str, Any]], files: list[str]
    ) -> None:
        """Use a checkpoint as the source of the next one's hard links.

        Args:
            checkpoint: complete, and verified against its manifest.
            manifest: of its files.
            files: names of those that contain weights.
        """
        paths = [checkpoint / name for name in files if manifest.keys() >= set(files)]
        self.files = [
            Written(path, str(manifest[path.name]["sha256"]), _stamp(path), weights_in(path))
            for path in paths
        ]

    def link_into(self, folder: Path, changed: frozenset[str]) -> dict[str, str]:
        """Link all files or none into a folder that is not sealed yet.

        Args:
            changed: names of the weights that are written again.

        Returns:
            The checksums of the files by name; empty if one of them has changed.
        """
        kept = [file for file in self.files if not file.names <= changed]
        if all(
            not file.names & changed and _placed(file, folder / file.path.name) for file in kept
        ):
            return {file.path.name: file.sha256 for file in kept}
        for file in kept:
            (folder / file.path.name).unlink(missing_ok=True)
        return {}


def _placed(file: Written, target: Path) -> bool:
    """Link a file, or copy it if it cannot be linked; returns whether its content is as
    recorded.
    """
    try:
        if _stamp(file.path) != file.stamp:
            return False
        os.link(file.path, target)
    except FileNotFoundError:
        return False
    except OSError:
        return _copied(file, target)
    return _stamp(target) == file.stamp


def _copied(file: Written, target: Path) -> bool:
    shutil.copyfile(file.path, target)
    flush(target)
    return file_digest(target) == file.sha256


def _stamp(path: Path) -> Stamp:
    found = path.lstat()
    # A symbolic link never has the stamp of a file.
    inode = found.st_ino if stat.S_ISREG(found.st_mode) else -1
    return found.st_dev, inode, found.st_size, found.st_mtime_ns
