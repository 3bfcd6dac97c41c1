"""The output folder: ownership, resuming, and the files of a finished run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import CONFIG_NAME

from sidtune.base.errors import UserError
from sidtune.base.storage import flush, refusing_failed_writes, write_text
from sidtune.encoding.frame import Frame
from sidtune.events.prepare import PREPARED
from sidtune.model.base_files import weight_faults
from sidtune.model.checkpoint_files import save_pretrained, save_training_state
from sidtune.runs.bundle import RECOMMENDER_FILE, Bundle, read_frame, write_bundle
from sidtune.runs.checkpoints import (
    BASES,
    FINAL,
    IDENTITY,
    MANIFEST,
    PARTIAL,
    Skipped,
    checkpoints,
    clean,
    compare_identity,
    damage,
    is_whole,
    make_partial,
    newest_complete,
    publish,
    read_identity,
    seal,
    without_length,
)
from sidtune.runs.files import CONFIG
from sidtune.runs.lock import locked
from sidtune.runs.model_card import Training
from sidtune.sids.index import FOLDER as SIDS
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import dump_config, with_absolute_paths

# Folders that commands before training create in an output_dir.
MADE_BEFORE = (PREPARED, SIDS, BASES)
# In place of `auto`, for a run that is to become longer.
EXTEND = "extend"


class FinishedError(UserError):
    """The folder already contains this run, finished."""


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Args:
        checkpoint: resume exactly from here; None for a new run.
        weights: start from these weights, without optimizer state.
        skipped: newer checkpoints that are not complete.
        stage: number of stages that are finished.
        extended: whether the run has become longer since the checkpoint.
    """

    checkpoint: Path | None = None
    weights: Path | None = None
    skipped: tuple[Skipped, ...] = ()
    stage: int = 0
    extended: bool = False


@contextmanager
def begun(
    folders: Sequence[Path], resume: str, identity: dict[str, Any], other_processes: bool = False
) -> Iterator[Start]:
    """Lock the output folder, delete what interrupted runs left half written, and decide where to
    begin.

    Args:
        folders, resume, identity, other_processes: as in `find_start`.

    Raises:
        UserError: if another run is using the folder, and as `find_start`.
    """
    if resume == "never" and other_processes:
        raise UserError(
            "--allow-other-processes has no effect with --resume never", "Remove one of them."
        )
    refuse_foreign(folders[-1])
    with locked(folders[-1]):
        start = find_start(folders, resume, identity, other_processes)
        for folder in folders:
            clean(folder)
        yield start


def find_start(
    folders: Sequence[Path], resume: str, identity: dict[str, Any], other_processes: bool = False
) -> Start:
    """Decide where to begin, before anything is written.

    Args:
        folders: of the stages; the last is the run's own.
        resume: `auto` (the newest complete checkpoint, if any), `extend` (the same, for a run that
            has become longer), `never`, or a folder.
        other_processes: whether to resume a checkpoint that another number of processes wrote.

    Raises:
        UserError: for another run's folder, a finished run, or a folder without weights.
    """
    if resume == "never":
        _refuse_occupied(folders[-1], resume)
        return Start()
    stage = _begun(folders)
    if resume == EXTEND:
        return _extended(folders, stage, identity, other_processes)
    if resume != "auto":
        return _given(Path(resume), folders, stage, identity, other_processes)
    _refuse_finished(folders[stage], identity, other_processes)
    if stage and not checkpoints(folders[stage]):
        return Start(
            weights=stage_result(folders[stage - 1], identity, other_processes), stage=stage
        )
    newest, skipped = newest_complete(folders[stage])
    if newest:
        compare_identity(newest, identity, other_processes)
        return Start(checkpoint=newest, skipped=tuple(skipped), stage=stage)
    if skipped:
        names = "; ".join(f"{folder.name}: {reason}" for folder, reason in skipped)
        raise UserError(
            f"{folders[stage]}: no checkpoint is complete ({names})",
            f"Delete {'these' if len(skipped) > 1 else 'it'} to start a new run there, or choose"
            " another output_dir.",
        )
    _refuse_occupied(folders[-1], resume)
    return Start()


def kept_frame(folders: Sequence[Path], chat: bool) -> Frame | None:
    """The text around examples as rendered when the run began, from the newest of its checkpoints
    and results whose file is intact.

    Args:
        folders: of the stages; the last is the run's own.
        chat: whether the run uses a chat template; None is returned if the saved frame does not
            match.
    """
    for folder in reversed(folders):
        for place in (*checkpoints(folder), folder / FINAL):
            if is_whole(place, RECOMMENDER_FILE):
                frame = read_frame(place)
                return frame if frame.chat == chat else None
    return None


def refuse_foreign(output_dir: Path) -> None:
    """Refuse a folder that contains files but no run.

    Raises:
        UserError: names one of the files, or says why the folder cannot be created.
    """
    for place in (output_dir, *output_dir.parents):
        if place.is_symlink() and not place.exists():
            message = f"output_dir {output_dir}: {place} is a broken link ({os.readlink(place)})"
            raise UserError(
                message, "Create the folder it points to, or choose another output_dir."
            )
        if place.exists() and not place.is_dir():
            raise UserError(
                f"output_dir {output_dir}: {place} is a file", "Choose another output_dir."
            )
    inside = [path.name for path in output_dir.iterdir()] if output_dir.is_dir() else []
    strange = [name for name in inside if not name.startswith(".") and name not in MADE_BEFORE]
    if strange and not _ours(output_dir):
        raise UserError(
            f"output_dir {output_dir} is not empty ({strange[0]})",
            "Choose a new or an empty folder.",
        )


def _extended(
    folders: Sequence[Path], stage: int, identity: dict[str, Any], other_processes: bool
) -> Start:
    """Where a run goes on that is to become longer: after its last step, with the optimizer's
    state.
    """
    run = folders[-1]
    newest, skipped = newest_complete(run)
    if stage < len(folders) - 1 or newest is None:
        raise UserError(
            f"--extend: {run} has no complete checkpoint of the run's last part",
            "Leave --extend out to begin or to resume the run. The weights of a finished run can"
            " start another one: `--resume PATH` with a new output_dir.",
        )
    compare_identity(newest, identity, other_processes, longer=True)
    if (run / FINAL).exists() and _length(run / FINAL) == _own_length(identity):
        raise FinishedError(
            f"{run} already contains this run, finished",
            "Raise training.epochs or training.max_steps, or the length of the last stage.",
        )
    return Start(
        checkpoint=newest,
        skipped=tuple(skipped),
        stage=stage,
        extended=_length(newest) != _own_length(identity),
    )


def _length(folder: Path) -> dict[str, Any]:
    return _own_length(read_identity(folder))


def _own_length(identity: dict[str, Any]) -> dict[str, Any]:
    """What an identity says of the length of its run."""
    kept = without_length(identity)
    return {name: value for name, value in identity.items() if value != kept.get(name)}


def _begun(folders: Sequence[Path]) -> int:
    """The stage that a run has reached: the last one with a checkpoint, or the one after the last
    finished one.
    """
    for stage in reversed(range(1, len(folders))):
        if checkpoints(folders[stage]) or (folders[stage - 1] / FINAL).exists():
            return stage
    return 0


def stage_result(folder: Path, identity: dict[str, Any], other_processes: bool = False) -> Path:
    """The folder with the result of a finished stage of this run.

    Raises:
        UserError: where it is damaged, or of another run.
    """
    result = folder / FINAL
    if reason := damage(result):
        raise UserError(
            f"{result} is incomplete: {reason}",
            "Delete it and run the same command again to recreate it.",
        )
    compare_identity(result, identity, other_processes)
    return result


def _refuse_finished(folder: Path, identity: dict[str, Any], other_processes: bool) -> None:
    if (folder / FINAL).exists():
        stage_result(folder, identity, other_processes)
        raise FinishedError(
            f"{folder} already contains this run, finished",
            "To train again, choose another output_dir.",
        )


def _given(
    folder: Path,
    folders: Sequence[Path],
    stage: int,
    identity: dict[str, Any],
    other_processes: bool,
) -> Start:
    if not folder.is_dir():
        raise UserError(
            f"--resume {folder}: no such folder", "Give a checkpoint folder, `auto` or `never`."
        )
    begun = folders[stage]
    if folder in checkpoints(begun) or folder.resolve() in checkpoints(begun.resolve()):
        reason = damage(folder)
        if reason:
            raise UserError(
                f"--resume {folder}: the checkpoint is incomplete: {reason}",
                "Use --resume auto to resume from the newest complete one.",
            )
        _refuse_finished(begun, identity, other_processes)
        compare_identity(folder, identity, other_processes)
        return Start(checkpoint=folder, stage=stage)
    _refuse_occupied(folders[-1], "PATH")
    for fault in weight_faults(str(folder), "Give a model or checkpoint folder."):
        raise fault
    return Start(weights=folder)


def _refuse_occupied(output_dir: Path, resume: str) -> None:
    """A new run must not mix its files with others'."""
    refuse_foreign(output_dir)
    ours = _ours(output_dir)
    trained = [
        (folder / FINAL).exists() or checkpoints(folder)
        for folder in (output_dir, *output_dir.glob("stage-*"))
    ]
    if ours and (resume != "auto" or any(trained)):
        raise UserError(
            f"output_dir {output_dir} contains another run ({ours[0]})",
            "Choose another output_dir, delete that folder, or resume from its checkpoints with"
            " --resume auto.",
        )


def _ours(output_dir: Path) -> list[str]:
    return [name for name in (CONFIG, FINAL) if (output_dir / name).exists()]


def write_config(config: Config) -> None:
    """Write the resolved configuration to the output folder, with paths that are valid from any
    folder.
    """
    config.output_dir.mkdir(parents=True, exist_ok=True)
    write_text(config.output_dir / CONFIG, dump_config(with_absolute_paths(config)))


def write_result(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    bundle: Bundle,
    output_dir: Path,
    identity: dict[str, Any],
    dtype: torch.dtype,
    training: Training | None = None,
) -> None:
    """Write the trained model to `output_dir` and, as the same files, to `final_checkpoint/`, which
    appears last.

    Args:
        training: what the model card says of the training.
    """
    with _written(output_dir / FINAL, model, identity) as partial:
        save_pretrained(model, tokenizer, partial, dtype)
        write_bundle(bundle, partial, training)
    with refusing_failed_writes(output_dir / FINAL):
        # The model's configuration last: until it exists, the folder is not recognised as a model.
        for source in sorted(
            partial.iterdir(), key=lambda file: (file.name == CONFIG_NAME, file.name)
        ):
            if source.name not in (MANIFEST, IDENTITY):
                _link(source, output_dir / source.name)
    publish(partial, output_dir / FINAL)


def write_stage(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    bundle: Bundle,
    folder: Path,
    identity: dict[str, Any],
) -> None:
    """Write what the next stage starts from: an ordinary model in its training precision, visible
    once complete.
    """
    with _written(folder / FINAL, model, identity) as partial:
        save_training_state(model, tokenizer, partial)
        write_bundle(bundle, partial)
    publish(partial, folder / FINAL)


@contextmanager
def _written(final: Path, model: PreTrainedModel, identity: dict[str, Any]) -> Iterator[Path]:
    """A partial folder to write a result into: sealed on success, deleted on failure."""
    partial = make_partial(final)
    try:
        with refusing_failed_writes(final, sum(weight.nbytes for weight in model.parameters())):
            yield partial
            seal(partial, identity)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _link(source: Path, target: Path) -> None:
    """Replace `target` atomically by a hard link, or by a copy if the file system has no links."""
    aside = target.with_name(f".{target.name}{PARTIAL}")
    aside.unlink(missing_ok=True)
    try:
        os.link(source, aside)
    except OSError:
        shutil.copy2(source, aside)
        flush(aside)
    os.replace(aside, target)
