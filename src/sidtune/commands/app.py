"""The Typer application that all commands register with."""

from __future__ import annotations

from typing import Annotated

import typer

from sidtune import __version__

app = typer.Typer(
    help="Fine-tune a causal language model as a generative recommender over semantic IDs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Global options."""
    if version:
        typer.echo(f"sidtune {__version__}")
        raise typer.Exit
