"""`sidtune evaluate`: rank the rows of a split."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import (
    console,
    json_text,
    launched,
    quiet_libraries,
)
from sidtune.commands.options import (
    AsJson,
    Beams,
    Candidates,
    ExcludeHistory,
    ModelFolder,
    Normalization,
    Processes,
    Split,
    TrustRemoteCode,
)
from sidtune.config.search import BEAMS, MAX_TOKENS, RankOptions


def evaluate(
    model: ModelFolder,
    split: Annotated[Split, typer.Option(help="Which rows of the run's configuration.")] = "test",
    beams: Beams = BEAMS,
    normalize: Normalization = "full",
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many rows, drawn by a fixed seed.")] = None,
    exclude_history: ExcludeHistory = False,
    candidates: Candidates = None,
    rows: Annotated[Path | None, typer.Option(help="Rows to rank, in place of the run's split.")] = None,
    train: Annotated[Path | None, typer.Option(help="Training rows for the baselines, in place of the run's.")] = None,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Rank with the model alone; no training rows are read.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Folder of the results; MODEL/evaluation by default.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one forward pass; bounds memory.")] = MAX_TOKENS,
    as_json: AsJson = False,
    processes: Processes = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Rank the rows of a split over the whole catalogue: HR@K, NDCG@K and MRR beside three baselines.

    Writes SPLIT.json with every figure and SPLIT.predictions.parquet with every list.

    Example: `sidtune evaluate runs/shop`
    """
    from sidtune.distributed import launch
    from sidtune.evaluation import evaluate as room
    from sidtune.evaluation.tables import render

    quiet_libraries()
    if processes and processes > 1 and not launched():
        raise typer.Exit(launch.launch(processes, sys.argv[1:]))
    options = RankOptions(beams, normalize, exclude_history, max_tokens)
    request = room.EvaluationRequest(
        model, split, options, limit, candidates, rows, train, output, trust_remote_code, not no_baselines
    )
    report = room.evaluate(request)
    if report and as_json:
        typer.echo(json_text(report.as_json(), indent=1))
    elif report:
        for table in render(report):
            console.print(table)
        folder = escape(str(room.results_folder(request)))
        console.print(f"Every figure: {folder}/{split}.json. Every list: {folder}/{split}.predictions.parquet")
