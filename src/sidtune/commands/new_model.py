"""`sidtune new-model`: create a small base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import console, quiet_libraries, starting


def new_model(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of the new base model; must not exist or be empty."
        ),
    ],
    items: Annotated[
        Path | None,
        typer.Option(
            help=(
                "The .item.json whose texts train the tokenizer; by default, the built-in prompt"
                " templates."
            )
        ),
    ] = None,
    hidden: Annotated[int, typer.Option(help="Hidden size, a multiple of 32.")] = 128,
    layers: Annotated[int, typer.Option(help="Transformer blocks.")] = 4,
    vocab: Annotated[
        int, typer.Option(help="Maximum vocabulary size of the byte-level BPE.")
    ] = 8000,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Create a small base model with random weights (Qwen3 type, byte-level BPE), for use without a
    pretrained one.

    The tokenizer encodes any text, and texts like its training texts in few tokens. Omit --items to
    train on SIDs alone.

    Example: `sidtune new-model bases/small --items data/shop.item.json`
    """
    starting("Making a base: some seconds, and more to train a tokenizer on many texts")
    from sidtune.data.catalogue import read_texts
    from sidtune.model.new_base import create_base
    from sidtune.templates import template_texts

    quiet_libraries()
    made = create_base(
        folder, read_texts(items) if items else template_texts(), hidden, layers, vocab, seed
    )
    console.print(
        f"{escape(str(folder))}: {made.parameters:,} parameters, {made.tokens:,} tokens. Use it as"
        " model.base."
    )
