"""The best checkpoint of a run, and its replacement if it is damaged."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainerState, TrainingArguments

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.distributed.processes import by_first
from sidtune.runs.checkpoints import checkpoints, damage, folder_of, step_of


def note(state: TrainerState, run: Path) -> None:
    """Set the best checkpoint's path on every rank, since all of them load it at the end."""
    if state.best_global_step:
        state.best_model_checkpoint = str(folder_of(run, state.best_global_step))


def restore(state: TrainerState, arguments: TrainingArguments, checkpoint: Path) -> None:
    """Restore the best checkpoint of a resumed run; if it is damaged or missing, choose the best of
    the others.

    Args:
        state: as the checkpoint has it.
        checkpoint: what the run resumes from.
    """
    if not state.best_global_step:
        return
    run = checkpoint.parent
    note(state, run)
    lost = folder_of(run, state.best_global_step)
    reason = by_first(lambda: damage(lost), arguments)
    if reason is None:
        return
    left = by_first(
        lambda: _left(state, str(arguments.metric_for_best_model), checkpoint), arguments
    )
    better = max if arguments.greater_is_better else min
    chosen = better(left, key=lambda step: left[step], default=None)
    state.best_global_step, state.best_model_checkpoint = chosen, None
    state.best_metric = None if chosen is None else left[chosen]
    note(state, run)
    if arguments.process_index == 0:
        instead = (
            f"step {chosen:,} is the best of the others"
            if chosen
            else "the next evaluation determines a new one"
        )
        warn(f"{lost}, the best checkpoint so far, cannot be used: {reason}; {instead}")


def verified(state: TrainerState, arguments: TrainingArguments) -> Path:
    """The folder of the best checkpoint, after verifying its checksums.

    Raises:
        UserError: where it is damaged.
    """
    assert state.best_model_checkpoint is not None
    best = Path(state.best_model_checkpoint)
    reason = by_first(lambda: damage(best), arguments)
    if reason:
        raise UserError(
            f"{best}, the best checkpoint of the run, is damaged: {reason}",
            "Run the same command again: it resumes from the newest complete checkpoint.",
        )
    return best


def _left(state: TrainerState, metric: str, checkpoint: Path) -> dict[int, float]:
    """Steps of the complete checkpoints up to this one, oldest first, with their values of
    `metric`.
    """
    values = {entry["step"]: entry[metric] for entry in state.log_history if metric in entry}
    sound = [
        folder for folder in reversed(checkpoints(checkpoint.parent)) if damage(folder) is None
    ]
    steps = [step for step in map(step_of, sound) if step <= step_of(checkpoint)]
    return {step: values[step] for step in steps if step in values}
