"""Checks of what a run finds in its folder: links, and the state file that Transformers reads
itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import TrainerState

from sidtune.base.errors import UserError
from sidtune.runs.checkpoints import read_ordinary

STATE = "trainer_state.json"
# In bytes, enough for ten million steps.
LONGEST_STATE = 1 << 32


def refuse_links(folders: Iterable[Path]) -> None:
    """Refuse links inside a run's folders, whose targets would be overwritten or deleted; the
    folder itself may be a link.

    Raises:
        UserError: names the link.
    """
    for folder in folders:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.is_symlink():
                raise UserError(
                    f"{entry} is a link to {entry.readlink()}, but a run writes only into its own"
                    " folder",
                    "Remove it. To store a run elsewhere, set output_dir to that place, or make it"
                    " a link.",
                )


def refuse_broken_state(checkpoint: Path) -> None:
    """Check the state file that Transformers will read, so that a fault gives a clear error.

    Raises:
        UserError: for an invalid state, or one of another step than in the folder's name.
    """
    path, hint = checkpoint / STATE, "Use another checkpoint."
    try:
        state = TrainerState(**json.loads(read_ordinary(path, LONGEST_STATE)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {str(error)[:200]}", hint) from None
    if checkpoint.name.rpartition("-")[2] != str(state.global_step):
        raise UserError(f"{path} does not belong to this checkpoint", hint)
