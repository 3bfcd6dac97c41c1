"""The output folder: whose it is, where a run goes on, and what stands in it at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from sidtune.bundle import Bundle, write_bundle
from sidtune.config import Config, dump_config
from sidtune.errors import UserError
from sidtune.model.checkpoint_files import save_pretrained
from sidtune.training.checkpoints import checkpoints, compare_identity, complete, newest_complete

CONFIG, FINAL = "config.yaml", "final_checkpoint"


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Args:
        checkpoint: go on from here exactly; None for a new run.
        weights: start from these weights alone.
    """

    checkpoint: Path | None = None
    weights: Path | None = None
    skipped: tuple[Path, ...] = ()


def find_start(output_dir: Path, resume: str, identity: dict[str, Any]) -> Start:
    """Decide where to begin, before anything is written.

    Args:
        resume: `auto` (the newest complete checkpoint, if any), `never`, or a folder.

    Raises:
        UserError: for another run's folder, a finished run, or a folder without weights.
    """
    if resume not in ("auto", "never"):
        return _given(Path(resume), output_dir, identity)
    newest, skipped = newest_complete(output_dir)
    if resume == "auto" and newest:
        return _continued(newest, skipped, identity)
    if resume == "auto" and skipped:
        names = ", ".join(folder.name for folder in skipped)
        raise UserError(
            f"{output_dir}: no checkpoint is complete ({names})",
            "Delete that folder to start anew, or choose another output_dir.",
        )
    _refuse_occupied(output_dir, resume)
    return Start()


def _continued(checkpoint: Path, skipped: Sequence[Path], identity: dict[str, Any]) -> Start:
    compare_identity(checkpoint, identity)
    if (checkpoint.parent / FINAL).exists():
        raise UserError(f"{checkpoint.parent} holds this run, finished", "To train again, choose another output_dir.")
    return Start(checkpoint=checkpoint, skipped=tuple(skipped))


def _given(folder: Path, output_dir: Path, identity: dict[str, Any]) -> Start:
    if not folder.is_dir():
        raise UserError(f"--resume {folder}: no such folder", "Give a checkpoint folder, `auto` or `never`.")
    if folder in checkpoints(output_dir) or folder.resolve() in checkpoints(output_dir.resolve()):
        if not complete(folder):
            raise UserError(f"--resume {folder}: it is not complete", "--resume auto takes the newest complete one.")
        return _continued(folder, [], identity)
    _refuse_occupied(output_dir, "PATH")
    return Start(weights=folder)


def _refuse_occupied(output_dir: Path, resume: str) -> None:
    """A new run must not mix its files with others'."""
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"output_dir {output_dir} is a file", "Choose another output_dir.")
    ours = [name for name in (CONFIG, FINAL) if (output_dir / name).exists()]
    if ours and (resume != "auto" or (output_dir / FINAL).exists() or checkpoints(output_dir)):
        raise UserError(
            f"output_dir {output_dir} holds another run ({ours[0]})",
            "Choose another output_dir, or delete that folder yourself; --resume auto goes on from its checkpoints.",
        )
    strange = [p.name for p in output_dir.iterdir() if not p.name.startswith(".")] if output_dir.is_dir() else []
    if strange and not ours:
        raise UserError(f"output_dir {output_dir} is not empty ({strange[0]})", "Choose a new or an empty folder.")


def write_config(config: Config) -> None:
    """Leave the resolved configuration in the output folder."""
    config.output_dir.mkdir(parents=True, exist_ok=True)
    (config.output_dir / CONFIG).write_text(dump_config(config), encoding="utf-8")


def write_result(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, bundle: Bundle, output_dir: Path, dtype: torch.dtype
) -> None:
    """The trained model in `output_dir` itself and, the same files, in `final_checkpoint/`; the latter appears last."""
    partial = output_dir / f".{FINAL}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_pretrained(model, tokenizer, partial, dtype)
    write_bundle(bundle, partial)
    for source in sorted(partial.iterdir()):
        _link(source, output_dir / source.name)
    os.rename(partial, output_dir / FINAL)


def _link(source: Path, target: Path) -> None:
    """A hard link where the file system has them, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
