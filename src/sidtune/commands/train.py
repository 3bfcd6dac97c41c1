"""`sidtune train`: fine-tune a model as configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sidtune.base.errors import UserError
from sidtune.base.terminal import (
    STARTING,
    console,
    first_process,
    quiet_libraries,
    quietly,
    starting,
)
from sidtune.commands.options import (
    ConfigFile,
    DryRun,
    OtherProcesses,
    Overrides,
    Processes,
    Quiet,
    Resume,
    TrustRemoteCode,
)
from sidtune.commands.stages import finish, in_several

if TYPE_CHECKING:
    from sidtune.tasks.config import Config


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="With --dry-run: plan for this many GPUs, and say if it fits."),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(min=1.0, metavar="GIB", help="With --gpus: memory of each GPU."),
    ] = None,
    resume: Resume = "auto",
    extend: Annotated[
        bool,
        typer.Option(
            "--extend",
            help="Continue a finished run to a larger training.epochs or training.max_steps.",
        ),
    ] = False,
    processes: Processes = None,
    allow_other_processes: OtherProcesses = False,
    trust_remote_code: TrustRemoteCode = False,
    quiet: Quiet = False,
) -> None:
    """Check the data, encode it (cached), train, and save an ordinary Hugging Face checkpoint.

    The model is in `output_dir`, and a ranker is fitted beside it (`rank.fit`). Run the command
    again to resume an interrupted run.

    Example: `sidtune train recipes/amazon-industrial.yaml training.epochs=3`
    """
    from sidtune.pipeline.defaults import load_run

    if extend and resume != "auto":
        raise UserError(f"--extend has no effect with --resume {resume}", "Remove one of them.")
    refuse_idle_gpus(gpus, gpu_memory, dry_run)
    with quietly(quiet):
        run_training(
            load_run(config, overrides or []),
            "extend" if extend else resume,
            dry_run,
            processes,
            trust_remote_code,
            allow_other_processes,
            (gpus, gpu_memory) if gpus and gpu_memory else None,
        )


def refuse_idle_gpus(gpus: int | None, gpu_memory: float | None, dry_run: bool) -> None:
    """Raises `UserError` for GPUs to plan for without a dry run, or half described."""
    if gpus is None and gpu_memory is None:
        return
    if not dry_run:
        raise UserError(
            "--gpus and --gpu-memory only plan, and have no effect without --dry-run",
            "Add --dry-run, or start processes with --processes.",
        )
    if gpus is None or gpu_memory is None:
        missing = "--gpus" if gpus is None else "--gpu-memory"
        raise UserError(
            f"{missing} is missing", "Give both, such as --dry-run --gpus 8 --gpu-memory 80."
        )


def run_training(
    config: Config,
    resume: str,
    dry_run: bool,
    processes: int | None,
    trust_remote_code: bool = False,
    other_processes: bool = False,
    gpus: tuple[int, float] | None = None,
) -> None:
    """Train, in this process or in several, and fit the ranker.

    Args:
        gpus: of a dry run: number and GiB of the GPUs to plan for.
    """
    # Before training is imported, which those processes do.
    if not in_several(processes):
        starting(STARTING)
        from sidtune.training.memory.fit import Gpus
        from sidtune.training.train import train as run

        quiet_libraries()
        result = run(
            config,
            resume,
            dry_run,
            trust_remote_code,
            other_processes,
            gpus=Gpus(*gpus) if gpus else None,
        )
        if result and first_process():
            console.print(escape(result.text))
    if not dry_run:
        finish(config, trust_remote_code)
