"""`sidtune recommend`: recommend items for histories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidtune.base.errors import UserError
from sidtune.base.terminal import console, json_text, quiet_libraries, starting
from sidtune.commands.options import (
    AsJson,
    Beams,
    BothDirections,
    Candidates,
    ExcludeHistory,
    ModelFolder,
    NoRank,
    Normalization,
    TrustRemoteCode,
)
from sidtune.config.search import RankOptions


def recommend(
    model: ModelFolder,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="ID,ID,…",
            help="Item ids, oldest first. Put an id that contains a comma in double quotes.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help='JSON Lines: {"user_id": "u1", "history": ["17"]}; - reads standard input.',
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items per list.")] = 10,
    beams: Beams = None,
    normalize: Normalization = "full",
    both_directions: BothDirections = False,
    exclude_history: ExcludeHistory = False,
    candidates: Candidates = None,
    no_rank: NoRank = False,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Recommend items for one history, or for each line of a file: title, SID and score.

    Example: `sidtune recommend runs/shop --history 12,7 -k 5`
    """
    if (history is None) == (source is None):
        raise UserError(
            "give either --history or --input", "sidtune recommend MODEL --history 12,7"
        )
    starting(f"Loading {model}")
    from sidtune.decoding import stream

    quiet_libraries()
    recommender = stream.load(model, candidates, trust_remote_code, not no_rank)
    asked = stream.histories(recommender, history, source)
    options = RankOptions(beams, normalize, exclude_history, both_directions=both_directions)
    for answer in stream.answer(recommender, asked, k, options):
        if as_json:
            typer.echo(json_text(stream.as_json(answer)))
        else:
            for part in stream.render(answer):
                console.print(part)
