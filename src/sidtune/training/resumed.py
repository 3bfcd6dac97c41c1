"""What a run finds in its folder and may not trust: links, and the state that Transformers reads by itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import TrainerState

from sidtune.errors import UserError

STATE = "trainer_state.json"


def refuse_links(folders: Iterable[Path]) -> None:
    """A link in a run's folder would be written or deleted through; a folder may itself be one, as its owner named it.

    Raises:
        UserError: names the link.
    """
    for folder in folders:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.is_symlink():
                raise UserError(
                    f"{entry} is a link to {entry.readlink()}, and a run writes into its own folder alone",
                    "Remove it. To keep a run elsewhere, let output_dir itself be there, or be a link.",
                )


def refuse_broken_state(checkpoint: Path) -> None:
    """Look at what Transformers will read of a checkpoint, so that a fault is told in words.

    Raises:
        UserError: for a state of another shape, or of another step than the folder's name says.
    """
    path, hint = checkpoint / STATE, "Use another checkpoint."
    try:
        state = TrainerState.load_from_json(str(path))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {str(error)[:200]}", hint) from None
    if f"{checkpoint.name.rpartition('-')[2]}" != f"{state.global_step}" or not _sound(state):
        raise UserError(f"{path} is not the state of this checkpoint", hint)


def _sound(state: TrainerState) -> bool:
    """Whether the fields that a run goes on from are of their types."""
    entries = state.log_history if isinstance(state.log_history, list) else [None]
    return (
        all(isinstance(entry, dict) and type(entry.get("step")) is int for entry in entries)
        and isinstance(state.best_global_step, int | None)
        and isinstance(state.best_metric, int | float | None)
        and isinstance(state.best_model_checkpoint, str | None)
        and isinstance(state.stateful_callbacks, dict)
    )
