"""`sidtune baselines`: rank the rows of a split with baselines that need no language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import console, json_text, quiet_libraries, starting
from sidtune.commands.options import (
    AsJson,
    Candidates,
    ConfigFile,
    ExcludeHistory,
    Limit,
    Overrides,
    Split,
)


def baselines(
    config: ConfigFile,
    overrides: Overrides = None,
    split: Annotated[Split, typer.Option(help="Split of the configuration to rank.")] = "test",
    simple: Annotated[
        bool, typer.Option("--simple", help="Skip SASRec, so that no extra library is needed.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**32 - 1, help="Seed of SASRec; overrides the seed in the configuration."
        ),
    ] = None,
    limit: Limit = None,
    exclude_history: ExcludeHistory = False,
    candidates: Candidates = None,
    output: Annotated[
        Path | None, typer.Option(help="Results folder; OUTPUT_DIR-baselines by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the rows of a split with SASRec and simple baselines. No language model is needed.

    SASRec's hyperparameters are selected on the validation rows. The results of each ranker are
    written to a folder of its own, which `compare` accepts like an evaluated run.

    Example: `sidtune baselines recipes/amazon-industrial.yaml`
    """
    from sidtune.evaluation import baseline_run as room
    from sidtune.pipeline.defaults import load_run

    quiet_libraries()
    request = room.BaselineRequest(
        load_run(config, overrides or [], model=False),
        split,
        simple,
        seed,
        limit,
        candidates,
        exclude_history,
        output,
    )
    starting(
        "Ranking with the simple baselines"
        + ("" if simple else ", and tuning SASRec on validation rows, which takes minutes to hours")
    )
    report = room.run_baselines(request)
    if as_json:
        typer.echo(json_text(report.as_json(), indent=1))
        return
    for part in room.render(report):
        console.print(part)
    console.print(
        f"All metrics: {escape(str(request.folder))}/{split}.json. One folder per ranker beside it."
    )
