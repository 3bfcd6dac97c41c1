"""`sidtune export`: write a model for another inference engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from sidtune.base.terminal import console, quiet_libraries
from sidtune.commands.options import ModelFolder


def export(
    model: ModelFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
    to: Annotated[Literal["flashrec"], typer.Option(help="The engine.")] = "flashrec",
) -> None:
    """Write a model for another inference engine: its SID tokens renumbered as the engine wants
    them, the catalogue, and how prompts are written.

    Example: `sidtune export runs/shop exports/shop --to flashrec`
    """
    from sidtune.exports.flashrec import PROMPT, SIDS, export_flashrec

    quiet_libraries()
    made = export_flashrec(model, folder)
    sizes = " × ".join(f"{size:,}" for size in made.codebooks.sizes)
    console.print(
        f"{escape(str(folder))}: {made.sids:,} SIDs of {sizes} codes in {SIDS}; {PROMPT} says how"
        " prompts are written. Start the engine:",
        soft_wrap=True,
    )
    console.print(escape(" \\\n  ".join(made.command)), soft_wrap=True)
