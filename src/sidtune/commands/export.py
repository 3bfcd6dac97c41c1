"""`sidtune export`: write a model for another inference engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from sidtune.base.terminal import console, quiet_libraries, starting
from sidtune.commands.options import ModelFolder


def export(
    model: ModelFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
    to: Annotated[
        Literal["vllm", "sglang", "flashrec"],
        typer.Option(help="The engine.", show_default=False),
    ],
) -> None:
    """Write a model for another inference engine: the model as the engine loads it, its catalogue
    as token ids, and how prompts are written.

    Example: `sidtune export runs/shop exports/shop --to vllm`
    """
    starting(f"Writing {folder}: some seconds, and more with a large model")
    quiet_libraries()
    if to == "flashrec":
        _flashrec(model, folder)
        return
    from sidtune.exports.plain import ITEMS, export_plain
    from sidtune.exports.prompt import PROMPT

    made = export_plain(model, folder, to)
    sizes = " × ".join(f"{len(level):,}" for level in made.trie.levels)
    console.print(
        f"{escape(str(folder))}: {made.trie.count:,} SIDs of {sizes} tokens in {ITEMS}; {PROMPT}"
        " says how prompts are written. In the engine's environment:",
        soft_wrap=True,
    )
    for command in made.commands:
        console.print(escape(command), soft_wrap=True)


def _flashrec(model: Path, folder: Path) -> None:
    from sidtune.exports.flashrec import SIDS, export_flashrec
    from sidtune.exports.prompt import PROMPT

    made = export_flashrec(model, folder)
    sizes = " × ".join(f"{size:,}" for size in made.codebooks.sizes)
    console.print(
        f"{escape(str(folder))}: {made.sids:,} SIDs of {sizes} codes in {SIDS}; {PROMPT} says how"
        " prompts are written. Start the engine:",
        soft_wrap=True,
    )
    console.print(escape(" \\\n  ".join(made.command)), soft_wrap=True)
