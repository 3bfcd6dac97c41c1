"""`sidtune rl`: reinforce a finished run."""

from __future__ import annotations

from rich.markup import escape

from sidtune.base.terminal import STARTING, console, first_process, quiet_libraries, starting
from sidtune.commands.options import (
    ConfigFile,
    DryRun,
    OtherProcesses,
    Overrides,
    Processes,
    Resume,
    TrustRemoteCode,
)
from sidtune.commands.stages import finish, in_several


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
    # Before training is imported, which those processes do.
    if not in_several(processes):
        starting(STARTING)
        from sidtune.reinforcement.run import reinforce

        quiet_libraries()
        gain = reinforce(loaded, resume, dry_run, trust_remote_code, allow_other_processes)
        if gain and first_process():
            console.print(escape(gain.text))
    if not dry_run:
        from sidtune.reinforcement.run import reinforced

        finish(reinforced(loaded), trust_remote_code)
