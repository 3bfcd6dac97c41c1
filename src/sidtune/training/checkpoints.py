"""Checkpoints: visible only when complete, and compared before a run goes on from one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from sidtune.data.files import read_json_object
from sidtune.errors import UserError

MANIFEST, IDENTITY, PREFIX = "manifest.json", "sidtune.json", "checkpoint-"


def publish(partial: Path, final: Path, identity: dict[str, Any]) -> None:
    """Make a fully written folder visible under its final name: nobody ever sees half of it."""
    (partial / IDENTITY).write_text(json.dumps(identity, indent=1))
    sizes = {str(path.relative_to(partial)): path.stat().st_size for path in _files(partial)}
    (partial / MANIFEST).write_text(json.dumps(sizes, indent=1))
    for path in _files(partial):
        _flush(path)
    if final.exists():
        remove(final)
    os.rename(partial, final)
    _flush(final.parent)


def remove(checkpoint: Path) -> None:
    """Take a checkpoint out of sight before its files go, so that none is ever seen half deleted."""
    aside = checkpoint.with_name(f".{checkpoint.name}.deleted")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(checkpoint, aside)
    shutil.rmtree(aside, ignore_errors=True)


def rotate(run: Path, limit: int, best: Path | None) -> None:
    """Keep the newest `limit` checkpoints and the best one."""
    for checkpoint in checkpoints(run)[limit:]:
        if best is None or checkpoint.name != best.name:
            remove(checkpoint)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, complete or not."""
    found = [path for path in run.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True)


def complete(checkpoint: Path) -> bool:
    """Whether every file that was written is there in its full size."""
    try:
        sizes: dict[str, int] = read_json_object(checkpoint / MANIFEST)
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, UserError):
        return False


def newest_complete(run: Path) -> tuple[Path | None, list[Path]]:
    """The newest complete checkpoint of a run, and the newer ones that were passed over."""
    skipped: list[Path] = []
    for checkpoint in checkpoints(run):
        if complete(checkpoint):
            return checkpoint, skipped
        skipped.append(checkpoint)
    return None, skipped


def compare_identity(checkpoint: Path, identity: dict[str, Any]) -> None:
    """Refuse to resume another run's checkpoint.

    Raises:
        UserError: lists what differs between the checkpoint's run and this one.
    """
    saved = read_json_object(checkpoint / IDENTITY)
    names = [name for name in {**saved, **identity} if saved.get(name) != identity.get(name)]
    if names:
        shown = "\n".join(f"  {name}: {saved.get(name)} in the checkpoint, {identity.get(name)} now" for name in names)
        raise UserError(
            f"{checkpoint} belongs to a run with other settings or data:\n{shown}",
            "Restore them, or choose a new output_dir; there, `--resume PATH` starts from its weights alone.",
        )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
