"""What a run finds in its folder and may not trust: links, and the state that Transformers reads by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState

from sidtune.base.errors import UserError
from sidtune.runs.checkpoints import read_ordinary

STATE = "trainer_state.json"
# Ten million steps, in bytes.
LONGEST_STATE = 1 << 32
# What Trainer makes anew from what the state says of it, with the names that it may say.
CALLBACKS = {type(one).__name__: one.state() for one in (TrainerControl(), EarlyStoppingCallback())}
NUMBERS = [field.name for field in fields(TrainerState) if type(field.default) in (int, float)]


def refuse_links(folders: Iterable[Path]) -> None:
    """A link in a run's folder would be written or deleted through; a folder may itself be one, as its owner named it.

    Raises:
        UserError: names the link.
    """
    for folder in folders:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.is_symlink():
                raise UserError(
                    f"{entry} is a link to {entry.readlink()}, but a run writes only into its own folder",
                    "Remove it. To store a run elsewhere, set output_dir to that place, or make it a link.",
                )


def refuse_broken_state(checkpoint: Path) -> None:
    """Look at what Transformers will read of a checkpoint, so that a fault is told in words.

    Raises:
        UserError: for a state of another shape, or of another step than the folder's name says.
    """
    path, hint = checkpoint / STATE, "Use another checkpoint."
    try:
        tree = json.loads(read_ordinary(path, LONGEST_STATE))
        state = TrainerState(**tree)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {str(error)[:200]}", hint) from None
    if f"{checkpoint.name.rpartition('-')[2]}" != f"{state.global_step}" or not _sound(state, tree):
        raise UserError(f"{path} does not belong to this checkpoint", hint)


def _sound(state: TrainerState, tree: dict[str, Any]) -> bool:
    """Whether the fields that a run goes on from are of their types."""
    callbacks = tree.get("stateful_callbacks", {})
    entries = state.log_history if isinstance(state.log_history, list) else [None]
    return (
        all(isinstance(entry, dict) and type(entry.get("step")) is int for entry in entries)
        and isinstance(state.best_global_step, int | None)
        and (state.best_metric is None or _is_number(state.best_metric))
        and isinstance(state.best_model_checkpoint, str | None)
        and isinstance(state.train_batch_size, int | None)
        and all(_is_number(getattr(state, name)) for name in NUMBERS)
        and isinstance(callbacks, dict)
        and all(_fits(name, entry) for name, said in callbacks.items() for entry in _listed(said))
    )


def _is_number(value: Any) -> bool:
    """Whether a run can count on with it: whole numbers of JSON may be too long for that."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _listed(said: Any) -> list[Any]:
    """The states of all callbacks of one name."""
    return said if isinstance(said, list) else [said]


def _fits(name: str, entry: Any) -> bool:
    """Whether a callback of this name, which ours save, can be made anew from an entry."""
    if name not in CALLBACKS or not isinstance(entry, dict):
        return False
    parts = [(entry.get(part, {}), CALLBACKS[name][part]) for part in ("args", "attributes")]
    return all(
        isinstance(part, dict) and part.keys() <= known.keys() and all(map(_is_number, part.values()))
        for part, known in parts
    )
