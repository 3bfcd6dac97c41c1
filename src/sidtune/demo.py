"""`sidtune demo`: made-up data, a small base, the five default tasks, and what to do next."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from sidtune.config import dump_config, parse_config
from sidtune.data.catalogue import read_texts
from sidtune.data.demo import write_demo_data
from sidtune.errors import UserError
from sidtune.model.new_base import create_base
from sidtune.terminal import console
from sidtune.training.train import Result, train

SEED = 0


def run_demo(folder: Path, users: int = 600) -> Result:
    """Make data and base, train from scratch, and say where everything lies.

    Args:
        folder: must be new or empty.
        users: customers of the made-up shop.

    Raises:
        UserError: where the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty", "Choose another folder: sidtune demo --output DIR")
    console.print("[bold]1. Data[/bold]: a made-up shop and its customers")
    paths = write_demo_data(folder / "data", SEED, users)
    console.print(f"   {escape(str(folder / 'data'))}")
    console.print("[bold]2. Base[/bold]: a small Qwen3-type model with random weights")
    made = create_base(folder / "base", read_texts(paths.items), hidden=128, layers=4, vocab=2000, seed=SEED)
    console.print(f"   {made.parameters:,} parameters, {made.tokens:,} tokens")
    config = parse_config(
        {
            "output_dir": str(folder / "run"),
            "seed": SEED,
            "model": {"base": str(folder / "base"), "from_scratch": True},
            "data": {name: str(getattr(paths, name)) for name in ("items", "index", "train", "valid", "test")},
            "encoding": {"cache_dir": str(folder / "cache"), "cutoff_len": 256},
            "training": {"epochs": 1, "batch_size": 64, "learning_rate": 2e-3},
            "eval": {"every": 0.2},
        },
        "demo",
    )
    (folder / "demo.yaml").write_text(dump_config(config), encoding="utf-8")
    console.print("[bold]3. Training[/bold]: five tasks at once")
    result = train(config)
    assert result is not None
    _next_steps(folder, result)
    return result


def _next_steps(folder: Path, result: Result) -> None:
    recipe = escape(str(folder / "demo.yaml"))
    console.print(
        f"\n[bold]Done[/bold] in {result.seconds:.0f} s: validation loss of the next SID, in nats a token: "
        f"{result.first_loss:.3f} before, {result.best_loss:.3f} after.\n"
        f"The checkpoint is a plain Hugging Face folder: {escape(str(result.folder / 'final_checkpoint'))}\n\n"
        f"Next:\n"
        f"  sidtune preview {recipe}            # what the model reads, and which tokens are labels\n"
        f"  sidtune check {recipe}              # everything wrong or worth knowing\n"
        f"  sidtune train {recipe} output_dir={escape(str(folder / 'run2'))} training.epochs=6\n"
        f"Your own data: README.md, “Your own data in three steps”."
    )
