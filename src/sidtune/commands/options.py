"""Arguments and options shared by several commands."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import typer

from sidtune.base.errors import UserError
from sidtune.config.search import Normalize


def complete_key(incomplete: str) -> list[str]:
    """The keys of the configuration that begin so, for the shell's completion."""
    from sidtune.tasks.keys import all_keys

    return [name for name in all_keys() if name.startswith(incomplete)]


def complete_override(incomplete: str) -> list[str]:
    """As `complete_key`, for `section.key=value`."""
    from sidtune.tasks.keys import all_keys

    return [
        f"{key.name}="
        for key in all_keys().values()
        if not key.is_section and key.name.startswith(incomplete)
    ]


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Configuration file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[section.key=value]...",
        help="Override keys of the file.",
        autocompletion=complete_override,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Allow Python code shipped with the model to run on this machine.",
    ),
]
Resume = Annotated[
    str,
    typer.Option(
        metavar="auto|never|PATH",
        help=(
            "auto: resume from the newest complete checkpoint, if there is one. never: start a new"
            " run. PATH: resume from this checkpoint of the run; train also starts a new run from"
            " the weights of another model folder."
        ),
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Do everything up to the first step and print the plan."),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Rank at most this many rows, sampled with a fixed seed."),
]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Start this many processes, one per GPU.")
]


def _with_model(folder: Path) -> Path:
    # Before the model is loaded, whose imports take seconds.
    from sidtune.runs.bundle import refuse_other_folders

    refuse_other_folders(folder)
    return folder


ModelFolder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL_OR_RUN",
        help="Run folder, or one of its checkpoints.",
        callback=_with_model,
    ),
]
Split = Literal["test", "valid", "train"]
Normalization = Annotated[
    Normalize,
    typer.Option(
        help=(
            "Normalise over the full vocabulary (the published protocol), or over the tokens the"
            " trie allows."
        )
    ),
]
BothDirections = Annotated[
    bool,
    typer.Option(
        "--both-directions",
        help=(
            "Order the model's own list by reading histories in both directions: for models"
            " trained on sid_sequence_reversed; takes about three times as long."
        ),
    ),
]
Beams = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=(
            "Beam width; also the maximum list length. By default what the ranker was fitted with"
            " (rank.beams), and 50 without one."
        ),
    ),
]
ExcludeHistory = Annotated[
    bool, typer.Option("--exclude-history", help="Never return an item of the history.")
]
Candidates = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Return only these items; one id per line.")
]
NoRank = Annotated[
    bool,
    typer.Option("--no-rank", help="Use the model's own order, without the ranker beside it."),
]
Host = Annotated[
    str,
    typer.Option(
        help="Address to listen at. The default is this machine alone; 0.0.0.0 is all networks."
    ),
]
OtherProcesses = Annotated[
    bool,
    typer.Option(
        "--allow-other-processes",
        help="Resume even if a different number of processes wrote the checkpoint.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings and errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def needing_serve(command: str) -> None:
    """Refuse a command where the libraries of a server are not installed."""
    names = ("fastapi", "uvicorn", "prometheus_client")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"sidtune {command} needs {', '.join(missing)}, which is not installed",
            "pip install 'sidtune[serve]'",
        )
