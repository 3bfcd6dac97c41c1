"""`sidtune run`: all stages, from events to an evaluated model."""

from __future__ import annotations

import typer
from rich.markup import escape

from sidtune.base.terminal import console, json_text, quiet_libraries
from sidtune.commands.options import AsJson, ConfigFile, Overrides, Processes, TrustRemoteCode


def run(
    config: ConfigFile,
    overrides: Overrides = None,
    processes: Processes = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Do every stage that is not yet done: prepare, sids, train, evaluate.

    Without `model.base`, a small model is trained from scratch, with settings that follow from the
    size of the data. Run it again after a change: only what the change affects is repeated.

    Example: `sidtune run shop.yaml`
    """
    from sidtune.pipeline.defaults import Request

    # Faults of a configuration are told before the other imports, which take seconds.
    request = Request.read(config, overrides or [])
    from sidtune.evaluation.tables import render
    from sidtune.pipeline.run import run as room

    quiet_libraries()
    report = room(request, processes or 1, trust_remote_code)
    if as_json:
        typer.echo(json_text(report.as_json(), indent=1))
        return
    for table in render(report):
        console.print(table)
    folder = escape(str(report.settings["model"]))
    console.print(f"Model: {folder}. Recommend: `sidtune recommend {folder} --history ID,ID,…`")
