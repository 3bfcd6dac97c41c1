"""`sidtune new-model`: make a small base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import (
    console,
    quiet_libraries,
)


def new_model(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the new base goes; must not exist.")],
    items: Annotated[
        Path | None,
        typer.Option(
            help="The .item.json whose text the tokenizer is trained on; without it, the wording of our prompts."
        ),
    ] = None,
    hidden: Annotated[int, typer.Option(help="Hidden size, a multiple of 32.")] = 128,
    layers: Annotated[int, typer.Option(help="Transformer blocks.")] = 4,
    vocab: Annotated[int, typer.Option(help="Tokens of the byte-level BPE, at most.")] = 8000,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Make a small base (Qwen3 type, byte-level BPE) for when there is no pretrained one.

    Its tokenizer writes any text, and what it was trained on in few tokens. Leave --items out to train on SIDs alone.

    Example: `sidtune new-model bases/small --items data/shop.item.json`
    """
    from sidtune.data.catalogue import read_texts
    from sidtune.model.new_base import create_base
    from sidtune.templates import wording_texts

    quiet_libraries()
    made = create_base(folder, read_texts(items) if items else wording_texts(), hidden, layers, vocab, seed)
    console.print(
        f"{escape(str(folder))}: {made.parameters:,} parameters, {made.tokens:,} tokens. Use it as model.base."
    )
