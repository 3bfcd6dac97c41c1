"""What the commands that train have in common: several processes, the ranker and the report."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

import typer

from sidtune.base.terminal import OWN_LAUNCHER, console, first_process, launched, quiet_libraries
from sidtune.commands.report import leave_report

if TYPE_CHECKING:
    from sidtune.tasks.config import Config


def in_several(processes: int | None) -> bool:
    """Run this very command in several processes, if so many are asked for and this is none of
    them; whether that was done.

    Raises:
        typer.Exit: where one of them failed, with its status.
    """
    if not processes or processes == 1 or launched():
        return False
    from sidtune.distributed import launch

    if status := launch.launch(processes, sys.argv[1:]):
        raise typer.Exit(status)
    return True


def finish(run: Config, trust_remote_code: bool) -> None:
    """Fit the ranker of a run that has just been trained, and leave the report; one of several
    processes leaves it to that which started them, or says what is left to do where another
    launcher did.
    """
    if launched():
        if first_process() and OWN_LAUNCHER not in os.environ:
            folder = shlex.quote(str(run.output_dir))
            fit = "" if run.rank.fit == "never" else f"`sidtune rank {folder}` fits the ranker; "
            console.print(f"Next: {fit}`sidtune report {folder}` writes the report.", markup=False)
        return
    from sidtune.pipeline.rank import rank_and_tell

    quiet_libraries()
    rank_and_tell(run, trust_remote_code)
    leave_report(run.output_dir)
