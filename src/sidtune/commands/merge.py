"""`sidtune merge`: the plain model of an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import console, quiet_libraries, starting
from sidtune.commands.options import TrustRemoteCode


def merge(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_ADAPTER", help="A run with an adapter, or the folder of an adapter."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Folder of the model; must not exist or be empty."),
    ],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge a LoRA adapter into its base model. A run's own folder needs no merging: it holds the
    merged model.

    Adapters are written by runs with `model.lora.save_adapter: true`. The result is an ordinary
    model folder, equal to that of the run.

    Example: `sidtune merge runs/shop/adapter models/shop`
    """
    starting("Merging: some seconds, and more with a large base")
    from sidtune.runs.adapters import merge_adapter

    quiet_libraries()
    folder = merge_adapter(source, target, trust_remote_code)
    console.print(f"{escape(str(folder))} merged: {escape(str(target))}", soft_wrap=True)
