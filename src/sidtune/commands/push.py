"""`sidtune push`: upload a finished model to the Hugging Face Hub."""

from __future__ import annotations

import math
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import console, quiet_libraries, starting
from sidtune.commands.options import ModelFolder

MEGABYTE = 1_000_000


def push(
    model: ModelFolder,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; else it is private.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload without asking.")] = False,
) -> None:
    """Upload a finished model to the Hugging Face Hub: weights, tokenizer, catalogue, prompt,
    ranker and model card.

    Lists the files and asks first. The configuration, logs, checkpoints and evaluations stay here,
    and a file that holds a path of this machine is refused. The catalogue holds ids, titles and
    SIDs of all items, and how many training users each has.

    Example: `sidtune push runs/shop me/shop-recommender`
    """
    from sidtune.pipeline import push as room

    quiet_libraries()
    room.refuse_name(repo)
    with room.gathered(model) as upload:
        for name, size in upload.files.items():
            console.print(f"  {escape(name)}  {_size(size)}")
        whole = _size(sum(upload.files.values()))
        kind = "public" if public else "private"
        question = f"Upload these {whole} to {repo} ({kind}, if it is new)?"
        if not yes and not typer.confirm(question):
            console.print("Nothing was uploaded.")
            raise typer.Exit(1)
        starting(f"Uploading {whole}")
        address = room.push(upload, repo, private=not public)
    console.print(f"Uploaded: {escape(address)}", soft_wrap=True)
    console.print(
        f'Use it: Recommender.load(huggingface_hub.snapshot_download("{escape(repo)}"))',
        soft_wrap=True,
    )


def _size(count: int) -> str:
    if count < MEGABYTE / 10:
        return f"{math.ceil(count / 1_000)} kB"
    return f"{count / MEGABYTE:,.1f} MB"
