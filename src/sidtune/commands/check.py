"""`sidtune check`: list all problems before training."""

from __future__ import annotations

import typer

from sidtune.base.errors import UserError
from sidtune.base.terminal import console, json_text, quiet_libraries, starting
from sidtune.commands.options import AsJson, ConfigFile, Overrides, TrustRemoteCode


def check(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Check configuration, data, tokenizer and model, and list all errors, warnings and notes at
    once.

    Exit status: 0 no problems, 1 warnings, 2 errors. Example: `sidtune check
    recipes/amazon-industrial.yaml`
    """
    from sidtune.checks.finding import Finding, exit_status, render
    from sidtune.checks.run import run_checks
    from sidtune.inputs import Inputs
    from sidtune.pipeline.defaults import load_run

    quiet_libraries()
    starting("Checking configuration, data, tokenizer and model: longest the first time")
    try:
        findings = run_checks(Inputs(load_run(config, overrides or []), trust_remote_code))
    except UserError as error:
        findings = [Finding("error", "configuration", error.message, [], error.hint)]
    if as_json:
        typer.echo(json_text([vars(finding) for finding in findings], indent=1))
    else:
        for line in render(findings):
            console.print(line)
    raise typer.Exit(exit_status(findings))
