"""`sidtune baselines`: rank the same rows without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import (
    console,
    json_text,
    quiet_libraries,
)
from sidtune.commands.options import (
    AsJson,
    Candidates,
    ConfigFile,
    ExcludeHistory,
    Overrides,
    Split,
)


def baselines(
    config: ConfigFile,
    overrides: Overrides = None,
    split: Annotated[Split, typer.Option(help="Which rows of the configuration.")] = "test",
    simple: Annotated[bool, typer.Option("--simple", help="Leave SASRec out; no library is needed then.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of SASRec, in place of the configuration's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many rows, drawn by a fixed seed.")] = None,
    exclude_history: ExcludeHistory = False,
    candidates: Candidates = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the results; OUTPUT_DIR-baselines by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the same rows with SASRec, tuned on the validation rows, and three simple baselines; needs no model.

    Writes a folder for each, which `compare` takes beside evaluated runs.

    Example: `sidtune baselines recipes/amazon-industrial.yaml`
    """
    from sidtune.evaluation import baseline_run as room
    from sidtune.tasks.config_file import load_config

    quiet_libraries()
    request = room.BaselineRequest(
        load_config(config, overrides or []), split, simple, seed, limit, candidates, exclude_history, output
    )
    report = room.run_baselines(request)
    if as_json:
        typer.echo(json_text(report.as_json(), indent=1))
        return
    for part in room.render(report):
        console.print(part)
    console.print(f"Every figure: {escape(str(request.folder))}/{split}.json. A folder for each ranker beside it.")
