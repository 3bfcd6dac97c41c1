"""`sidtune rank`: fit a ranker beside a finished model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.errors import UserError
from sidtune.base.terminal import STARTING, console, json_text, quiet_libraries, starting
from sidtune.commands.options import AsJson, ModelFolder, Overrides, TrustRemoteCode

Events = Annotated[
    Path | None,
    typer.Option(
        metavar="FILES",
        help="Count these later events in, without fitting anew; files as `events.files` takes.",
    ),
]
ItemTexts = Annotated[
    Path | None,
    typer.Option("--items", metavar="FILE", help="With --events: texts of all items."),
]


def rank(
    model: ModelFolder,
    overrides: Overrides = None,
    events: Events = None,
    items: ItemTexts = None,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Fit a ranker on the run's validation rows: it puts the model's items and those of other
    sources (item transitions, texts and more) in one order.

    `evaluate` and `recommend` use it from then on. `sidtune train` and `sidtune run` fit it at
    their end by themselves; `rank.fit: never` turns that off.

    Keys of the section `rank` can be given in place of those of the run's configuration.

    Example: `sidtune rank runs/shop`, or `sidtune rank runs/shop rank.beams=100`
    """
    starting(STARTING)
    from sidtune.pipeline.rank import count_later, given_options, rank_run, render

    quiet_libraries()
    if items and not events:
        raise UserError("--items has no effect without --events", "Remove it.")
    if events and overrides:
        raise UserError(
            f"{overrides[0]} has no effect with --events, which fits nothing anew", "Remove it."
        )
    if events:
        later = count_later(model, events, items, trust_remote_code)
        told = {"events": later.events, "unknown": later.unknown}
        unknown = f"; {later.unknown:,} of unknown items are left out" if later.unknown else ""
        text = f"{later.events:,} later events are counted in{unknown}"
        if as_json:
            typer.echo(json_text(told, indent=1))
        else:
            console.print(text)
        return
    found = rank_run(model, trust_remote_code, given_options(model, overrides or []))
    if as_json:
        typer.echo(json_text(found.as_json(), indent=1))
        return
    for part in render(found):
        console.print(part)
    console.print(f"Compare on test rows: `sidtune evaluate {escape(str(model))}`", soft_wrap=True)
