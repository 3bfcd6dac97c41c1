"""The best checkpoint of a run, and its replacement if it is damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformers import TrainerState, TrainingArguments

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.distributed.processes import by_first
from sidtune.runs.checkpoints import checkpoints, damage, folder_of, step_of

# In the log, the standard error of a metric has its name and this behind it.
ERROR = "_error"
# Evaluations that differ by less than this part of a standard error are level. Two models of a run
# are right about the same rows, so late in a run their difference has about half of the error that
# each of them has (docs/evaluation.md).
LEVEL = 0.5


def is_best(
    metrics: Mapping[str, float], highest: float | None, arguments: TrainingArguments
) -> bool:
    """Whether an evaluation is the best so far: better than all before it, or level with the best
    of them, since a sample of rows cannot tell them apart and training goes on to learn.

    Args:
        metrics: by log name.
        highest: the best value before, in a state's `best_metric`; None if there is none.
    """
    name = str(arguments.metric_for_best_model)
    if highest is None:
        return True
    ahead = metrics[name] - highest
    if not arguments.greater_is_better:
        ahead = -ahead
    return ahead > -LEVEL * metrics.get(name + ERROR, 0.0)


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
    metric = str(arguments.metric_for_best_model)
    left = by_first(lambda: _left(state, metric, checkpoint), arguments)
    better = max if arguments.greater_is_better else min
    best, highest = None, None
    for entry in left:
        if is_best(entry, highest, arguments):
            best = int(entry["step"])
        highest = entry[metric] if highest is None else better(highest, entry[metric])
    state.best_global_step, state.best_model_checkpoint = best, None
    state.best_metric = highest
    note(state, run)
    if arguments.process_index == 0:
        instead = (
            f"step {best:,} is the best of the others"
            if best
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


def _left(state: TrainerState, metric: str, checkpoint: Path) -> list[dict[str, float]]:
    """The evaluations whose checkpoints are complete, up to this one, oldest first."""
    sound = {step_of(folder) for folder in checkpoints(checkpoint.parent) if damage(folder) is None}
    return [
        entry
        for entry in state.log_history
        if metric in entry and entry["step"] in sound and entry["step"] <= step_of(checkpoint)
    ]
