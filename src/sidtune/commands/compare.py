"""`sidtune compare`: compare evaluated runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidtune.base.errors import UserError
from sidtune.base.terminal import console, json_text, starting
from sidtune.commands.options import AsJson, Split


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_A RUN_B ...", help="Evaluated runs; the first is the reference."
        ),
    ],
    split: Annotated[Split, typer.Option(help="Split whose evaluations are compared.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Compare evaluated runs: which differences are statistically significant (paired bootstrap
    over the shared rows).

    Example: `sidtune compare runs/a runs/b`
    """
    from sidtune.evaluation import compare as room

    if len(runs) < 2:
        raise UserError(
            "compare needs at least two runs", "Give two or more: sidtune compare RUN_A RUN_B"
        )
    first, *others = [room.read_evaluated(run, split) for run in runs]
    starting("Drawing the rows again and again (paired bootstrap)")
    comparisons = room.compare(first, others)
    if as_json:
        typer.echo(json_text(room.as_json(comparisons), indent=1))
        return
    for comparison in comparisons:
        for part in room.render(comparison):
            console.print(part)
