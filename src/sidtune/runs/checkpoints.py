"""Checkpoints: published atomically, and verified before a run resumes from one."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from sidtune.base.errors import UserError
from sidtune.base.hashing import file_digest
from sidtune.base.storage import flush, flush_all
from sidtune.base.terminal import warn

MANIFEST, IDENTITY = "manifest.json", "sidtune.json"
PREFIX, FINAL, ADAPTER = "checkpoint-", "final_checkpoint", "adapter"
# Where base models lie that are made for a run, under its output_dir.
BASES = "bases"
PROCESSES, PRECISION = "processes", "training.precision"
# Settings that may change when a run is resumed; each difference gives a warning.
CHANGEABLE = {PRECISION} | {
    f"training.{name}"
    for name in ("warmup", "max_grad_norm", "layout", "max_tokens", "micro_batch_size", "compile")
}
# Settings that checkpoints of earlier versions do not contain.
RECORDED_LATER = (
    "model.from_scratch",
    "training.epochs",
    "training.max_steps",
    "training.min_lr_ratio",
    "eval.every",
    "eval.max_rows",
    "eval.task_rows",
    "eval.patience",
)
# What says how long a run is; `--extend` may change it, also in the last of `stages`.
LENGTHS = ("training.epochs", "training.max_steps")
# Maximum size of a manifest or an identity in bytes, enough for ten thousand files.
LONGEST_JSON = 1 << 20
PARTIAL, DELETED = ".partial", ".deleted"
LEFTOVER = re.compile(
    rf"\.({PREFIX}\d+|{FINAL}|{ADAPTER})({re.escape(PARTIAL)}|{re.escape(DELETED)})"
)
# Default values of settings that are saved only if they differ.
UNSAID = {
    "model.new_rows": "mean",
    "eval.task": "sid_next",
    "training.decay_embeddings": True,
    "training.distributed": "ddp",
    "loss": "plain cross-entropy",
    "eval.metric": "loss",
}


# Maps a file name to the file's `bytes` and `sha256`.
Manifest = dict[str, dict[str, Any]]


class Skipped(NamedTuple):
    """A checkpoint that cannot be resumed from, and why."""

    folder: Path
    reason: str


def partial_of(final: Path) -> Path:
    """The hidden folder to write to first, which is then renamed to the final name."""
    return final.with_name(f".{final.name}{PARTIAL}")


def make_partial(final: Path) -> Path:
    """Create the folder of `partial_of`, empty."""
    partial = partial_of(final)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def seal(
    partial: Path, identity: dict[str, Any], known: Mapping[str, str] = MappingProxyType({})
) -> Manifest:
    """Write the identity and a manifest of sizes and checksums, and flush everything to disk.

    Args:
        known: checksums, by name, of files that are already on disk.
    """
    (partial / IDENTITY).write_text(json.dumps(identity, indent=1), encoding="utf-8")
    paths = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    files = {path.relative_to(partial).as_posix(): path for path in paths}
    manifest = {
        name: {"bytes": path.stat().st_size, "sha256": known.get(name) or file_digest(path)}
        for name, path in files.items()
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    flush_all(partial, known)
    return manifest


def publish(partial: Path, final: Path) -> None:
    """Rename a folder whose files are on disk to its final name, so that it is never visible half
    written.

    An existing folder of that name is removed: it is damaged, or left from before the run was
    resumed at an earlier step.
    """
    if final.exists():
        remove(final)
    os.rename(partial, final)
    for folder in (final.parent, final.parent.parent):
        flush(folder)


def remove(checkpoint: Path) -> None:
    """Rename a checkpoint before deleting its files, so that it is never visible half deleted."""
    aside = checkpoint.with_name(f".{checkpoint.name}{DELETED}")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(checkpoint, aside)
    flush(checkpoint.parent)
    shutil.rmtree(aside, ignore_errors=True)


def rotate(newest: Path, limit: int, best: Path | None) -> None:
    """Delete all checkpoints but the best one and the last `limit` up to the newest, which was just
    published.

    Those of later steps are damaged, or left from before the run was resumed at an earlier step.
    """
    found = checkpoints(newest.parent)
    begin = found.index(newest)
    for checkpoint in [*found[:begin], *found[begin + limit :]]:
        if best is None or checkpoint.name != best.name:
            remove(checkpoint)


def clean(run: Path) -> None:
    """Delete folders that interrupted processes left half written or half deleted."""
    for path in run.glob(".*") if run.is_dir() else ():
        if LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, complete or not."""
    found = [
        path
        for path in run.glob(f"{PREFIX}*")
        if re.fullmatch(r"\d+", path.name.removeprefix(PREFIX), re.ASCII)
    ]
    return sorted(found, key=step_of, reverse=True)


def folder_of(run: Path, step: int) -> Path:
    """The checkpoint after so many optimizer updates."""
    return run / f"{PREFIX}{step}"


def step_of(checkpoint: Path) -> int:
    """The number of optimizer updates before a checkpoint."""
    return int(checkpoint.name.removeprefix(PREFIX))


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, such as the first file that differs from the manifest; None
    if nothing is.
    """
    try:
        manifest = read_manifest(checkpoint)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, RecursionError):
        return f"{MANIFEST} cannot be read"
    if endless := [
        path.name
        for path in checkpoint.iterdir()
        if path.exists() and not (path.is_file() or path.is_dir())
    ]:
        # Refused even if the manifest does not list it: opening it may block.
        return f"{endless[0]} cannot be read: it is a pipe or a device"
    faults = (
        _fault(checkpoint, name, entry, verify)
        for verify in (False, True)
        for name, entry in manifest.items()
    )
    return next((fault for fault in faults if fault), None)


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of a checkpoint; raises as `read_ordinary`, and `ValueError` for an invalid
    one.
    """
    manifest = json.loads(read_ordinary(checkpoint / MANIFEST, LONGEST_JSON))
    if not isinstance(manifest, dict) or IDENTITY not in manifest:
        raise ValueError("it is not a valid manifest")
    return manifest


def is_whole(checkpoint: Path, name: str) -> bool:
    """Whether one file of a checkpoint matches the manifest; other files are not checked."""
    try:
        entry = read_manifest(checkpoint)[name]
    except (OSError, ValueError, RecursionError, KeyError):
        return False
    return _fault(checkpoint, name, entry, verify=True) is None


def newest_complete(run: Path) -> tuple[Path | None, list[Skipped]]:
    """The newest complete checkpoint of a run, and the newer ones that were skipped."""
    skipped: list[Skipped] = []
    for checkpoint in checkpoints(run):
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint, skipped
        skipped.append(Skipped(checkpoint, reason))
    return None, skipped


def read_identity(checkpoint: Path) -> dict[str, Any]:
    """The identity that `seal` saved.

    Raises:
        UserError: where the file cannot be read.
    """
    try:
        identity = json.loads(read_ordinary(checkpoint / IDENTITY, LONGEST_JSON))
        if isinstance(identity, dict):
            return identity
    except (OSError, ValueError, RecursionError):
        pass
    raise UserError(f"{checkpoint / IDENTITY} cannot be read", "Use another checkpoint.")


def without_length(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity without what says how long the run is."""
    kept = {name: value for name, value in identity.items() if name not in LENGTHS}
    stages = kept.get("stages")
    if isinstance(stages, list) and stages and isinstance(stages[-1], dict):
        kept["stages"] = [*stages[:-1], {**stages[-1], "steps": None, "epochs": None}]
    return kept


def compare_identity(
    checkpoint: Path, identity: dict[str, Any], other_processes: bool = False, longer: bool = False
) -> None:
    """Refuse to resume another run's checkpoint, and warn of changed settings that may change.

    Args:
        other_processes: whether the number of processes may differ.
        longer: whether the length of the run may differ.

    Raises:
        UserError: lists what differs between the checkpoint's run and this one.
    """
    saved = read_identity(checkpoint)
    if longer:
        saved, identity = without_length(saved), without_length(identity)
    unknown = [name for name in RECORDED_LATER if name in identity and name not in saved]
    names = [
        name
        for name in {**saved, **identity}
        if name not in CHANGEABLE and name not in unknown and saved.get(name) != identity.get(name)
    ]
    if not names or (names == [PROCESSES] and other_processes):
        _say_changes(checkpoint, saved, identity, unknown)
    else:
        shown = "\n".join(
            f"  {name}: {_value(saved, name)} in the checkpoint, {_value(identity, name)} now"
            for name in names
        )
        again = (
            f"Use {saved.get(PROCESSES)} processes again, or add --allow-other-processes: the order"
            " of examples stays"
        )
        one, other = without_length(saved), without_length(identity)
        hint = (
            "Restore them, or choose a new output_dir, where `--resume PATH` starts from its"
            " weights only."
        )
        if names == [PROCESSES]:
            hint = f"{again} the same, but results are not bit-identical."
        # Reinforcement cannot be extended.
        elif "rl.start" not in identity and all(one.get(name) == other.get(name) for name in names):
            hint = f"`sidtune train --extend` trains this run on to its new length. {hint}"
        raise UserError(
            f"{checkpoint} belongs to a run with different settings or data:\n{shown}", hint
        )


def _value(identity: dict[str, Any], name: str) -> Any:
    return identity.get(name, UNSAID.get(name))


def _say_changes(
    checkpoint: Path, saved: dict[str, Any], identity: dict[str, Any], unknown: list[str]
) -> None:
    """Warn of changed settings that may change, and of those that cannot be compared."""
    for name in sorted(CHANGEABLE & saved.keys() & identity.keys()):
        if saved[name] != identity[name]:
            warn(
                f"{name}: {saved[name]} in {checkpoint}, {identity[name]} now; the resumed run is"
                " not bit-identical"
            )
    if unknown:
        warn(
            f"{checkpoint} was written by an earlier version of sidtune, which did not save"
            f" {', '.join(unknown)}: they cannot be compared. Make sure that they have not changed"
        )


def _fault(checkpoint: Path, name: str, entry: Any, verify: bool) -> str | None:
    """What is wrong with a file's size or, with `verify`, its checksum; None if nothing is."""
    size, checksum = (
        entry.get(key) if isinstance(entry, dict) else None for key in ("bytes", "sha256")
    )
    if (
        not isinstance(size, int)
        or PurePosixPath(name).is_absolute()
        or ".." in PurePosixPath(name).parts
    ):
        return f"{MANIFEST} cannot be read"
    try:
        found = ordinary_size(checkpoint / name)
        if found != size:
            return f"{name} has {found:,} of {size:,} bytes"
        if verify and file_digest(checkpoint / name) != checksum:
            return f"{name} has changed since it was written"
    except (FileNotFoundError, NotADirectoryError):
        return f"{name} is missing"
    except (OSError, ValueError) as error:
        return f"{name} cannot be read ({error})"
    return None


def ordinary_size(path: Path) -> int:
    """The size of a regular file in bytes.

    Raises:
        OSError: for a file that is missing.
        ValueError: for a link, which a run never writes, a pipe, which may block, or a device,
            which may not end.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file")
    return found.st_size


def read_ordinary(path: Path, longest: int) -> str:
    """The text of a regular file; raises as `ordinary_size`, and `ValueError` above `longest`
    bytes.
    """
    if ordinary_size(path) > longest:
        raise ValueError(f"it exceeds {longest:,} bytes")
    return path.read_text(encoding="utf-8")
