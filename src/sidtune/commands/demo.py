"""`sidtune demo`: the whole pipeline on generated data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidtune.base.terminal import quiet_libraries, starting


def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for data, base model and run; must not exist or be empty.")
    ] = Path("demo"),
    rl: Annotated[
        bool, typer.Option("--rl", help="Reinforce the model too, and show what that changed.")
    ] = False,
) -> None:
    """Train, evaluate and recommend on generated data, on the CPU, in minutes; --rl takes one more.

    Example: `sidtune demo --output /tmp/demo`
    """
    starting(f"About {'five' if rl else 'four'} minutes on two cores")
    from sidtune.commands.demo_steps import run_demo

    quiet_libraries()
    run_demo(output, rl=rl)
