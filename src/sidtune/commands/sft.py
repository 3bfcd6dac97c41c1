"""`sidtune sft`: fine-tune with the flags of MiniOneRec's training script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import console, first_process
from sidtune.commands.options import DryRun, Processes
from sidtune.commands.train import run_training

BaseModel = Annotated[
    str, typer.Option("--base_model", help="Folder or Hub name of the base model.")
]
TrainFile = Annotated[Path, typer.Option("--train_file", help="Training rows (CSV).")]
EvalFile = Annotated[Path, typer.Option("--eval_file", help="Validation rows (CSV).")]
OutputDir = Annotated[Path, typer.Option("--output_dir", help="Output folder of the run.")]
SidIndexPath = Annotated[Path, typer.Option("--sid_index_path", help="The .index.json file.")]
ItemMetaPath = Annotated[Path, typer.Option("--item_meta_path", help="The .item.json file.")]
Sample = Annotated[int, typer.Option("--sample", help="Rows per task; -1 for all.")]
Seed = Annotated[int, typer.Option("--seed", help="Random seed.")]
BatchSize = Annotated[
    int, typer.Option("--batch_size", help="Examples per step, over all processes.")
]
MicroBatchSize = Annotated[
    int,
    typer.Option(
        "--micro_batch_size",
        help="Limits memory: a forward pass has at most this many times cutoff_len tokens.",
    ),
]
NumEpochs = Annotated[int, typer.Option("--num_epochs", help="Number of epochs.")]
LearningRate = Annotated[float, typer.Option("--learning_rate", help="Peak learning rate.")]
CutoffLen = Annotated[int, typer.Option("--cutoff_len", help="Maximum example length, in tokens.")]
GroupByLength = Annotated[
    str, typer.Option("--group_by_length", help="True or False; has no effect.")
]
FreezeLlm = Annotated[
    str, typer.Option("--freeze_LLM", help="True or False: train only the SID rows.")
]
WandbProject = Annotated[str, typer.Option("--wandb_project", help="W&B project to log to.")]
WandbRunName = Annotated[str, typer.Option("--wandb_run_name", help="Name of the W&B run.")]
ResumeFromCheckpoint = Annotated[
    str,
    typer.Option(
        "--resume_from_checkpoint",
        help="auto, never or a folder; None means never, True means auto.",
    ),
]
Category = Annotated[
    str, typer.Option("--category", help="Any text; the built-in templates do not use it.")
]
TrainFromScratch = Annotated[
    str,
    typer.Option(
        "--train_from_scratch",
        help="True or False: start from random weights of the base model's shape.",
    ),
]


def sft(
    base_model: BaseModel,
    train_file: TrainFile,
    eval_file: EvalFile,
    output_dir: OutputDir,
    sid_index_path: SidIndexPath,
    item_meta_path: ItemMetaPath,
    sample: Sample = -1,
    seed: Seed = 42,
    batch_size: BatchSize = 128,
    micro_batch_size: MicroBatchSize = 4,
    num_epochs: NumEpochs = 10,
    learning_rate: LearningRate = 3e-4,
    cutoff_len: CutoffLen = 512,
    group_by_length: GroupByLength = "False",
    freeze_llm: FreezeLlm = "False",
    wandb_project: WandbProject = "",
    wandb_run_name: WandbRunName = "",
    resume_from_checkpoint: ResumeFromCheckpoint = "auto",
    category: Category = "",
    train_from_scratch: TrainFromScratch = "False",
    processes: Processes = None,
    dry_run: DryRun = False,
) -> None:
    """Train with the flags of MiniOneRec's training script, and print the equivalent configuration.

    Example: `sidtune sft --base_model Qwen/Qwen2.5-0.5B --train_file train.csv --eval_file
    valid.csv --output_dir runs/a --sid_index_path a.index.json --item_meta_path a.item.json
    --freeze_LLM False`
    """
    flags = dict(locals())
    from sidtune.config import minionerec
    from sidtune.tasks.config_file import dump_config, parse_config

    resume = minionerec.resume(resume_from_checkpoint)
    config = parse_config(minionerec.to_config(**flags), "the flags")
    if first_process():
        console.print(
            "# The configuration equivalent to these flags; save it and use it with `sidtune"
            " train`.",
            style="dim",
        )
        console.print(escape(dump_config(config)))
        if minionerec.boolean(group_by_length):
            console.print(
                "--group_by_length has no effect: prefix trees need no batches of similar length.",
                style="dim",
            )
        if category:
            console.print(
                f"--category {escape(category)} has no effect: the built-in templates do not"
                " use it.",
                style="dim",
            )
    run_training(config, resume, dry_run, processes)
