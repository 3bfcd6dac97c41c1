"""`sidtune rank`: fit a ranker beside a finished model."""

from __future__ import annotations

import typer

from sidtune.base.terminal import console, json_text, quiet_libraries
from sidtune.commands.options import AsJson, ModelFolder, TrustRemoteCode


def rank(
    model: ModelFolder,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Fit a ranker on the run's validation rows: it puts the model's items and those of other
    sources (item transitions, texts and more) in one order.

    `evaluate` and `recommend` use it from then on. `sidtune train` and `sidtune run` fit it at
    their end by themselves; `rank.fit: never` turns that off.

    Example: `sidtune rank runs/shop`
    """
    from sidtune.pipeline.rank import rank_run, render

    quiet_libraries()
    found = rank_run(model, trust_remote_code)
    if as_json:
        typer.echo(json_text(found.as_json(), indent=1))
        return
    for part in render(found):
        console.print(part)
    console.print(f"Compare on test rows: `sidtune evaluate {model}`", soft_wrap=True)
