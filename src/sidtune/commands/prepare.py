"""`sidtune prepare`: from events and a catalogue to rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.errors import UserError
from sidtune.base.terminal import console, json_text
from sidtune.commands.options import AsJson, ConfigFile, Overrides


def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    minionerec: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write MiniOneRec's files into this folder."),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The .index.json whose SIDs --minionerec writes."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn events and a catalogue into training rows, and say what each step left out and why.

    Reads `events` and `catalogue` of the configuration. Does nothing where it is done already.

    Example: `sidtune prepare shop.yaml`
    """
    if index and not minionerec:
        raise UserError(
            "--index has no effect without --minionerec, which writes its SIDs",
            "Remove it, or add --minionerec FOLDER.",
        )
    from sidtune.config.events import PrepareConfig
    from sidtune.events import prepare as room
    from sidtune.events.minionerec import write_minionerec
    from sidtune.events.report import lines
    from sidtune.tasks.config_file import parse_part, read_tree

    tree = read_tree(config, overrides or [])
    done = room.prepare(parse_part(tree, PrepareConfig, str(config)))
    if minionerec:
        write_minionerec(done.folder, minionerec, index)
    if as_json:
        typer.echo(
            json_text({"folder": str(done.folder), "again": done.again, **done.summary}, indent=1)
        )
        return
    for line in lines(done):
        console.print(escape(line), soft_wrap=True)
    if minionerec:
        console.print(f"MiniOneRec's files: {escape(str(minionerec))}", soft_wrap=True)
