"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sidtune.config.search import Normalize

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The configuration.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[section.key=value]...", help="Keys that replace those of the file."),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let Python code that comes with the base run on this machine."),
]
Resume = Annotated[
    str,
    typer.Option(metavar="auto|never|PATH", help="Go on from the newest complete checkpoint, or from this folder."),
]
Processes = Annotated[int | None, typer.Option(min=1, help="Start this many processes, one for each GPU.")]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL_OR_RUN", help="A run's folder, or one of its checkpoints.")]
Split = Literal["test", "valid", "train"]
Normalization = Annotated[
    Normalize,
    typer.Option(help="Probabilities over the full vocabulary, as published, or over the tokens that may follow."),
]
Beams = Annotated[int, typer.Option(min=1, help="Width of the search; no list is longer.")]
ExcludeHistory = Annotated[bool, typer.Option("--exclude-history", help="Never answer with an item of the history.")]
Candidates = Annotated[Path | None, typer.Option(metavar="FILE", help="Answer only with these items, an id a line.")]
OtherProcesses = Annotated[
    bool,
    typer.Option("--allow-other-processes", help="Go on though another number of processes wrote the checkpoint."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
