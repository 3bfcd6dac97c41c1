"""`sidtune evaluate`: rank the rows of a split with a model and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import STARTING, console, json_text, quiet_libraries, quietly, starting
from sidtune.commands.options import (
    AsJson,
    Beams,
    BothDirections,
    Candidates,
    ExcludeHistory,
    Limit,
    ModelFolder,
    NoRank,
    Normalization,
    Processes,
    Quiet,
    Split,
    TrustRemoteCode,
)
from sidtune.commands.report import leave_report
from sidtune.commands.stages import in_several
from sidtune.config.search import MAX_TOKENS, RankOptions

RankedSplit = Annotated[Split, typer.Option(help="Split of the run's configuration to rank.")]
Rows = Annotated[
    Path | None, typer.Option(help="File of rows to rank, instead of the run's split.")
]
Train = Annotated[
    Path | None,
    typer.Option(help="File of training rows for the baselines, instead of the run's."),
]
NoBaselines = Annotated[
    bool,
    typer.Option("--no-baselines", help="Leave the baselines out; training rows are not read."),
]
Output = Annotated[Path | None, typer.Option(help="Results folder; MODEL/evaluation by default.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens per forward pass; limits memory.")]


def evaluate(
    model: ModelFolder,
    split: RankedSplit = "test",
    beams: Beams = None,
    normalize: Normalization = "full",
    both_directions: BothDirections = False,
    limit: Limit = None,
    exclude_history: ExcludeHistory = False,
    candidates: Candidates = None,
    rows: Rows = None,
    train: Train = None,
    no_baselines: NoBaselines = False,
    no_rank: NoRank = False,
    output: Output = None,
    max_tokens: MaxTokens = MAX_TOKENS,
    as_json: AsJson = False,
    processes: Processes = None,
    trust_remote_code: TrustRemoteCode = False,
    quiet: Quiet = False,
) -> None:
    """Rank the rows of a split over the whole catalogue: HR@K, NDCG@K and MRR of the ranker beside
    the model, of the model alone, and of simple baselines.

    Writes all metrics to SPLIT.json and all ranked lists to SPLIT.predictions.parquet.

    Example: `sidtune evaluate runs/shop`
    """
    # Before the evaluation is imported, which those processes do.
    if in_several(processes):
        return
    with quietly(quiet):
        starting(STARTING)
    from sidtune.evaluation import evaluate as room
    from sidtune.evaluation.tables import render, told_without_history

    quiet_libraries()
    options = RankOptions(beams, normalize, exclude_history, max_tokens, both_directions)
    request = room.EvaluationRequest(
        model,
        split,
        options,
        limit,
        candidates,
        rows,
        train,
        output,
        trust_remote_code,
        not no_baselines,
        not no_rank,
    )
    with quietly(quiet):
        report = room.evaluate(request)
        if report and as_json:
            typer.echo(json_text(report.as_json(), indent=1))
        elif report:
            for table in render(report):
                console.print(table)
            place = f"{escape(str(room.results_folder(request)))}/{split}"
            console.print(
                f"All metrics: {place}.json. All ranked lists: {place}.predictions.parquet"
            )
            for line in told_without_history(report, rows, train):
                console.print(escape(line), soft_wrap=True)
        if report and output is None:
            leave_report(model, said=not as_json)
