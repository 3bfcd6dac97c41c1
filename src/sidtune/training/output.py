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
from sidtune.config import Config
from sidtune.config_file import dump_config
from sidtune.errors import UserError
from sidtune.model.checkpoint_files import save_pretrained, save_training_state
from sidtune.training.checkpoints import checkpoints, compare_identity, complete, newest_complete, publish

CONFIG, FINAL = "config.yaml", "final_checkpoint"


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Args:
        checkpoint: go on from here exactly; None for a new run.
        weights: start from these weights alone.
        stage: number of stages that are finished.
    """

    checkpoint: Path | None = None
    weights: Path | None = None
    skipped: tuple[Path, ...] = ()
    stage: int = 0


def find_start(folders: Sequence[Path], resume: str, identity: dict[str, Any]) -> Start:
    """Decide where to begin, before anything is written.

    Args:
        folders: of the stages; the last is the run's own.
        resume: `auto` (the newest complete checkpoint, if any), `never`, or a folder.

    Raises:
        UserError: for another run's folder, a finished run, or a folder without weights.
    """
    stage = _begun(folders)
    if resume not in ("auto", "never"):
        return _given(Path(resume), folders, stage, identity)
    if resume == "auto" and stage and not checkpoints(folders[stage]):
        return Start(weights=stage_result(folders[stage - 1], identity), stage=stage)
    newest, skipped = newest_complete(folders[stage])
    if resume == "auto" and newest:
        return _continued(newest, skipped, identity, stage)
    if resume == "auto" and skipped:
        names = ", ".join(folder.name for folder in skipped)
        raise UserError(
            f"{folders[stage]}: no checkpoint is complete ({names})",
            "Delete that folder to start anew, or choose another output_dir.",
        )
    _refuse_occupied(folders[-1], resume)
    return Start()


def _begun(folders: Sequence[Path]) -> int:
    """The stage that a run has come to: the last one that has a checkpoint, or the one behind the last finished one."""
    for stage in reversed(range(1, len(folders))):
        if checkpoints(folders[stage]) or (folders[stage - 1] / FINAL).exists():
            return stage
    return 0


def stage_result(folder: Path, identity: dict[str, Any]) -> Path:
    """What a finished stage of this run left for the next one.

    Raises:
        UserError: where it is damaged, or of another run.
    """
    result = folder / FINAL
    if not complete(result):
        raise UserError(f"{result} is not complete", "Delete it: the stage's last checkpoint writes it again.")
    compare_identity(result, identity)
    return result


def _continued(checkpoint: Path, skipped: Sequence[Path], identity: dict[str, Any], stage: int) -> Start:
    compare_identity(checkpoint, identity)
    if (checkpoint.parent / FINAL).exists():
        raise UserError(f"{checkpoint.parent} holds this run, finished", "To train again, choose another output_dir.")
    return Start(checkpoint=checkpoint, skipped=tuple(skipped), stage=stage)


def _given(folder: Path, folders: Sequence[Path], stage: int, identity: dict[str, Any]) -> Start:
    if not folder.is_dir():
        raise UserError(f"--resume {folder}: no such folder", "Give a checkpoint folder, `auto` or `never`.")
    begun = folders[stage]
    if folder in checkpoints(begun) or folder.resolve() in checkpoints(begun.resolve()):
        if not complete(folder):
            raise UserError(f"--resume {folder}: it is not complete", "--resume auto takes the newest complete one.")
        return _continued(folder, [], identity, stage)
    _refuse_occupied(folders[-1], "PATH")
    return Start(weights=folder)


def _refuse_occupied(output_dir: Path, resume: str) -> None:
    """A new run must not mix its files with others'."""
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"output_dir {output_dir} is a file", "Choose another output_dir.")
    ours = [name for name in (CONFIG, FINAL) if (output_dir / name).exists()]
    trained = [(folder / FINAL).exists() or checkpoints(folder) for folder in (output_dir, *output_dir.glob("stage-*"))]
    if ours and (resume != "auto" or any(trained)):
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


def write_stage(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, bundle: Bundle, folder: Path, identity: dict[str, Any]
) -> None:
    """What the next stage starts from: an ordinary model in the precision it was trained in, visible when complete."""
    partial = folder / f".{FINAL}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_training_state(model, tokenizer, partial)
    write_bundle(bundle, partial)
    publish(partial, folder / FINAL, identity)


def _link(source: Path, target: Path) -> None:
    """A hard link where the file system has them, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
