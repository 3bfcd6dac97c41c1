"""`sidtune rl`: reinforce a finished run."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from sidtune.base.terminal import (
    STARTING,
    console,
    first_process,
    launched,
    quiet_libraries,
    starting,
)
from sidtune.commands.options import (
    ConfigFile,
    DryRun,
    OtherProcesses,
    Overrides,
    Processes,
    Resume,
    TrustRemoteCode,
)
from sidtune.commands.report import leave_report


def rl(
    config: ConfigFile,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    resume: Resume = "auto",
    processes: Processes = None,
    allow_other_processes: OtherProcesses = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Continue a finished run by reinforcement learning: the model answers with lists, and is
    rewarded for the rank of the target in them.

    CONFIG.yaml is the file that the run was trained with; its section `rl` has the settings. The
    result is an ordinary model folder, by default `output_dir` with `-rl` at its end.

    Example: `sidtune rl recipes/amazon-industrial-rl.yaml rl.steps=200`
    """
    from sidtune.pipeline.defaults import load_run

    loaded = load_run(config, overrides or [])
    if processes and processes > 1 and not launched():
        # Before training is imported, which those processes do.
        from sidtune.distributed import launch

        if status := launch.launch(processes, sys.argv[1:]):
            raise typer.Exit(status)
    else:
        starting(STARTING)
        from sidtune.reinforcement.run import reinforce

        quiet_libraries()
        gain = reinforce(loaded, resume, dry_run, trust_remote_code, allow_other_processes)
        if gain and first_process():
            console.print(escape(gain.text))
    if not dry_run and not launched():
        from sidtune.pipeline.rank import rank_after, render
        from sidtune.reinforcement.run import reinforced

        quiet_libraries()
        run = reinforced(loaded)
        found = rank_after(run, trust_remote_code)
        for part in render(found) if found else ():
            console.print(part)
        leave_report(run.output_dir)
