"""`sidtune demo`: the main job on generated data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidtune.base.terminal import (
    quiet_libraries,
)


def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, base and run; must not exist.")] = Path("demo"),
) -> None:
    """The main job on made-up data, on the CPU, in under three minutes: train, evaluate, recommend.

    Example: `sidtune demo --output /tmp/demo`
    """
    from sidtune.commands.demo_steps import run_demo

    quiet_libraries()
    run_demo(output)
