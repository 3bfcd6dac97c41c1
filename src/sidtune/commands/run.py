"""`sidtune run`: all stages, from events to an evaluated model."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer
from rich.markup import escape

from sidtune.base.terminal import STARTING, console, json_text, quiet_libraries, quietly, starting
from sidtune.commands.options import (
    AsJson,
    ConfigFile,
    Overrides,
    Processes,
    Quiet,
    TrustRemoteCode,
)
from sidtune.commands.report import leave_report


def run(
    config: ConfigFile,
    overrides: Overrides = None,
    processes: Processes = None,
    trust_remote_code: TrustRemoteCode = False,
    quiet: Quiet = False,
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
    with quietly(quiet):
        starting(STARTING)
    from sidtune.evaluation.tables import render, told_without_history
    from sidtune.pipeline.run import run as room

    quiet_libraries()
    with quietly(quiet):
        report = room(request, processes or 1, trust_remote_code)
        leave_report(Path(report.settings["model"]), said=not as_json)
        if as_json:
            typer.echo(json_text(report.as_json(), indent=1))
            return
        for table in render(report):
            console.print(table)
        for line in told_without_history(report):
            console.print(escape(line), soft_wrap=True)
        _say_next(Path(report.settings["model"]))


def _say_next(model: Path) -> None:
    """Commands that work as they stand, with two popular items for a history."""
    from sidtune.files.ids import join_ids
    from sidtune.runs.bundle import read_bundle

    items = join_ids(read_bundle(model).by_users[:2])
    folder = shlex.quote(str(model))
    console.print(f"Model: {escape(str(model))}. Next:", soft_wrap=True)
    for command in (f"recommend {folder} --history {shlex.quote(items)}", f"play {folder}"):
        console.print(f"  sidtune {escape(command)}", soft_wrap=True)
