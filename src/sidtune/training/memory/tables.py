"""Prints estimates of memory."""

from __future__ import annotations

from rich.table import Table
from transformers import TrainingArguments

from sidtune.base.storage import GIB
from sidtune.base.terminal import console
from sidtune.batching.steps import Steps
from sidtune.config.training import TrainingConfig
from sidtune.tasks.config import Config
from sidtune.training.memory.estimate import Memory, Untraceable
from sidtune.training.memory.fit import Gpus, Option, as_configured, options
from sidtune.training.method import Shared

PARTS = ("weights", "gradients", "optimizer", "exchange", "activations", "logits")
AS_CONFIGURED = "as configured"


def describe_memory(
    config: Config,
    shared: Shared,
    steps: Steps,
    arguments: TrainingArguments,
    gpus: Gpus | None,
) -> None:
    """Print the memory of a stage, on this machine or on the GPUs that it is planned for.

    Raises:
        Untraceable: for GPUs, and a model whose memory cannot be estimated.
    """
    if gpus is None:
        try:
            print_memory(as_configured(config, shared, steps, arguments))
        except Untraceable as fault:
            console.print(f"{fault.message}. {fault.hint}")
    else:
        found = options(config, shared, steps, gpus)
        print_memory(found[0].memory)
        print_options(found, gpus, config.training)


def print_memory(memory: Memory) -> None:
    """Print the parts of an estimate."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = [part for part in PARTS if part != "exchange" or memory.exchange]
    for title in (*shown, "total"):
        table.add_column(title, justify="right")
    values = [getattr(memory, part) for part in shown]
    table.add_row(*(_gib(value) for value in (*values, memory.total)))
    console.print(
        "estimated memory of each process, in GiB (activations and logits at"
        f" {memory.tokens:,} tokens per forward pass)"
    )
    console.print(table)
    if memory.offloaded:
        console.print(
            f"and {_gib(memory.offloaded)} GiB of main memory for the optimizer's state, which is"
            " offloaded"
        )


def print_options(options: list[Option], gpus: Gpus, training: TrainingConfig) -> None:
    """Print whether a run fits, and what would make it fit."""
    configured, *others = options
    sharing = "FSDP2" if training.distributed == "fsdp2" else "DDP"
    precision = "fp32" if training.precision == "fp32" else "bf16"
    fits = "fits" if configured.fits(gpus) else "does not fit"
    console.print(
        f"on {gpus.count} × {gpus.gib:g} GiB with {sharing} in {precision}, of which"
        f" {gpus.room / GIB:.1f} GiB are used at most: {fits} as configured"
        f" ({_gib(configured.memory.total)} GiB)"
    )
    if others:
        console.print(_options_table(options, gpus))
        if not any(option.fits(gpus) for option in others):
            console.print("None of these fits: use a smaller base or larger GPUs.")


def _options_table(options: list[Option], gpus: Gpus) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("change", overflow="fold")
    for title in ("state", "activations", "logits", "total", "tokens per pass", ""):
        table.add_column(title, justify="right")
    for option in options:
        memory = option.memory
        parts = (memory.state, memory.activations, memory.logits, memory.total)
        table.add_row(
            " ".join(f"{key}={_written(value)}" for key, value in option.changes.items())
            or AS_CONFIGURED,
            *map(_gib, parts),
            f"{memory.tokens:,}",
            "fits" if option.fits(gpus) else "too large",
        )
    return table


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
