"""`sidtune play`: try a model in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import STARTING, console, quiet_libraries, starting
from sidtune.commands.options import (
    Beams,
    Host,
    ModelFolder,
    Normalization,
    TrustRemoteCode,
    needing_serve,
)
from sidtune.config.search import RankOptions


def play(
    model: ModelFolder,
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="Another one, to compare with.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8001,
    beams: Beams = None,
    normalize: Normalization = "full",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Try a model, or compare two, in the browser: search items, build a history, and see the list
    change and why.

    Example: `sidtune play runs/shop runs/other`
    """
    needing_serve("play")
    starting(STARTING)
    from sidtune.decoding.recommender import Recommender
    from sidtune.playground.app import playground_app
    from sidtune.serving.engine import Engine
    from sidtune.serving.reload import try_out
    from sidtune.serving.server import bound, run, url

    quiet_libraries()
    folders = [model, other] if other else [model]
    listener, options = bound(host, port), RankOptions(beams, normalize)
    engines = []
    for folder in folders:
        console.print(f"Loading {escape(str(folder))} …")
        recommender = Recommender.load(folder, trust_remote_code=trust_remote_code)
        recommender.settled(options, said=True)
        try_out(recommender, options)
        engines.append(Engine(recommender, options))
    app = playground_app(engines, [str(folder) for folder in folders], host)

    def announce() -> None:
        console.print(f"Open {url(listener)} in a browser. Ctrl-C stops.", soft_wrap=True)

    run(app, listener, 5, announce)
