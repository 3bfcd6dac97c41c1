"""`sidtune preview`: print training examples as the model reads them."""

from __future__ import annotations

from typing import Annotated

import typer

from sidtune.base.terminal import console, json_text, quiet_libraries, starting
from sidtune.commands.options import AsJson, ConfigFile, Overrides, TrustRemoteCode


def preview(
    config: ConfigFile,
    overrides: Overrides = None,
    task: Annotated[str | None, typer.Option(help="Show only this task.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Examples per template name.")] = 3,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Print training examples as the model reads them: label tokens in green, a red bar after each
    segment.

    Example: `sidtune preview recipes/amazon-industrial.yaml --task sid_next -n 2`
    """
    from sidtune.checks import preview as room
    from sidtune.inputs import Inputs
    from sidtune.pipeline.defaults import load_run

    quiet_libraries()
    starting("Reading the data")
    examples = room.preview(Inputs(load_run(config, overrides or []), trust_remote_code), task, n)
    if as_json:
        typer.echo(json_text(room.as_json(examples), indent=1))
        return
    for example in examples:
        console.print(room.render(example), soft_wrap=True)
