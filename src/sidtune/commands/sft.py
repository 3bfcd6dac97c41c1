"""`sidtune sft`: fine-tune with the flags of MiniOneRec's training script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import (
    console,
    first_process,
)
from sidtune.commands.options import (
    Processes,
)
from sidtune.commands.train import run_training


def sft(
    base_model: Annotated[str, typer.Option("--base_model", help="Folder or Hub name of the base model.")],
    train_file: Annotated[Path, typer.Option("--train_file", help="Training rows (CSV).")],
    eval_file: Annotated[Path, typer.Option("--eval_file", help="Validation rows (CSV).")],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Output folder of the run.")],
    sid_index_path: Annotated[Path, typer.Option("--sid_index_path", help="The .index.json file.")],
    item_meta_path: Annotated[Path, typer.Option("--item_meta_path", help="The .item.json file.")],
    sample: Annotated[int, typer.Option("--sample", help="Rows per task; -1 for all.")] = -1,
    seed: Annotated[int, typer.Option("--seed", help="Random seed.")] = 42,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Examples per step, over all processes.")] = 128,
    micro_batch_size: Annotated[
        int,
        typer.Option(
            "--micro_batch_size", help="Limits memory: a forward pass has at most this many times cutoff_len tokens."
        ),
    ] = 4,
    num_epochs: Annotated[int, typer.Option("--num_epochs", help="Number of epochs.")] = 10,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="Peak learning rate.")] = 3e-4,
    cutoff_len: Annotated[int, typer.Option("--cutoff_len", help="Maximum example length, in tokens.")] = 512,
    group_by_length: Annotated[str, typer.Option("--group_by_length", help="True or False; has no effect.")] = "False",
    freeze_llm: Annotated[str, typer.Option("--freeze_LLM", help="True or False: train only the SID rows.")] = "False",
    wandb_project: Annotated[str, typer.Option("--wandb_project", help="W&B project to log to.")] = "",
    wandb_run_name: Annotated[str, typer.Option("--wandb_run_name", help="Name of the W&B run.")] = "",
    resume_from_checkpoint: Annotated[
        str,
        typer.Option("--resume_from_checkpoint", help="auto, never or a folder; None means never, True means auto."),
    ] = "auto",
    category: Annotated[str, typer.Option("--category", help="Any text; the built-in templates do not use it.")] = "",
    train_from_scratch: Annotated[
        str,
        typer.Option(
            "--train_from_scratch", help="True or False: start from random weights of the base model's shape."
        ),
    ] = "False",
    processes: Processes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything up to the first step and print the plan.")
    ] = False,
) -> None:
    """Train with the flags of MiniOneRec's training script, and print the equivalent configuration.

    Example: `sidtune sft --base_model Qwen/Qwen2.5-0.5B --train_file train.csv --eval_file valid.csv
    --output_dir runs/a --sid_index_path a.index.json --item_meta_path a.item.json --freeze_LLM False`
    """
    flags = dict(locals())
    from sidtune.config import minionerec
    from sidtune.tasks.config_file import dump_config, parse_config

    resume = minionerec.resume(resume_from_checkpoint)
    config = parse_config(minionerec.to_config(**flags), "the flags")
    if first_process():
        console.print(
            "# The configuration equivalent to these flags; save it and use it with `sidtune train`.", style="dim"
        )
        console.print(escape(dump_config(config)))
        if minionerec.boolean(group_by_length):
            console.print(
                "--group_by_length has no effect: prefix trees need no batches of similar length.", style="dim"
            )
        if category:
            console.print(
                f"--category {escape(category)} has no effect: the built-in templates do not use it.", style="dim"
            )
    run_training(config, resume, dry_run, processes)
