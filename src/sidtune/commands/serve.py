"""`sidtune serve`: answer requests for recommendations over HTTP."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import STARTING, console, quiet_libraries, starting
from sidtune.commands.options import (
    Beams,
    BothDirections,
    Host,
    ModelFolder,
    NoRank,
    Normalization,
    TrustRemoteCode,
    needing_serve,
)
from sidtune.config.search import RankOptions


def serve(
    model: ModelFolder,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    beams: Beams = None,
    normalize: Normalization = "full",
    both_directions: BothDirections = False,
    no_rank: NoRank = False,
    batch: Annotated[int, typer.Option(min=1, help="Requests answered together, at most.")] = 32,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; more are answered with 503.")
    ] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a request may take.")] = 10.0,
    max_body: Annotated[int, typer.Option(min=64, help="Bytes of a request.")] = 1_000_000,
    max_history: Annotated[int, typer.Option(min=1, help="Items of a history.")] = 1_000,
    max_candidates: Annotated[
        int, typer.Option(min=1, help="Ids in a request's list of candidates.")
    ] = 50_000,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Answer requests for recommendations over HTTP: POST /recommend, GET /health, /ready, /model,
    /metrics and /openapi.json.

    SIGTERM and Ctrl-C stop it when all requests are answered. SIGHUP reloads the model's folder
    while the old model goes on.

    Example: `sidtune serve runs/shop --port 8000`
    """
    needing_serve("serve")
    starting(STARTING)
    from sidtune.decoding.recommender import Recommender
    from sidtune.serving.app import serving_app
    from sidtune.serving.engine import Engine
    from sidtune.serving.limits import Limits
    from sidtune.serving.metrics import Metrics
    from sidtune.serving.reload import Reloader, try_out
    from sidtune.serving.server import bound, run, url

    quiet_libraries()
    limits = Limits(max_body, max_history, max_candidates, timeout)
    listener = bound(host, port)
    console.print(f"Loading {escape(str(model))} …")

    def load() -> Recommender:
        return Recommender.load(model, trust_remote_code=trust_remote_code, rank=not no_rank)

    recommender = load()
    options = RankOptions(beams, normalize, both_directions=both_directions)
    recommender.settled(options, said=True)
    try_out(recommender, options)
    metrics = Metrics()
    engine = Engine(recommender, options, queue, batch, metrics.on_batch)
    reloader = Reloader(engine, load, metrics.on_reload)
    items, sources = len(recommender.bundle.catalogue.ids), recommender.ranker
    ranked = f"ranked by {len(sources.sources)} sources" if sources else "in the model's own order"
    body = json.dumps({"history": recommender.bundle.catalogue.ids[:1], "k": 3})
    example = (
        f"  curl {url(listener)}/recommend -H 'Content-Type: application/json'"
        f" -d {shlex.quote(body)}"
    )

    def announce() -> None:
        console.print(f"Serving {items:,} items, {ranked}. Ctrl-C stops, SIGHUP reloads the model.")
        console.print(f"POST {url(listener)}/recommend, for example:", soft_wrap=True)
        console.print(escape(example), soft_wrap=True)

    run(serving_app(engine, metrics, limits, host), listener, timeout, announce, reloader.demand)
