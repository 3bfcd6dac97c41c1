"""What a run finds in its folder and may not trust: links, and the state that Transformers reads by
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
# Ten million steps, in bytes.
LONGEST_STATE = 1 << 32


def refuse_links(folders: Iterable[Path]) -> None:
    """A link in a run's folder would be written or deleted through; a folder may itself be one, as
    its owner named it.

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
    """Look at what Transformers will read of a checkpoint, so that a fault is told in words.

    Raises:
        UserError: for a state of another shape, or of another step than the folder's name says.
    """
    path, hint = checkpoint / STATE, "Use another checkpoint."
    try:
        state = TrainerState(**json.loads(read_ordinary(path, LONGEST_STATE)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {str(error)[:200]}", hint) from None
    if checkpoint.name.rpartition("-")[2] != str(state.global_step):
        raise UserError(f"{path} does not belong to this checkpoint", hint)
