"""`sidtune report`: one HTML file about a run, or about several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidtune.base.terminal import console
from sidtune.commands.options import Split


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders; of several, the first is the reference."),
    ],
    split: Annotated[
        Split | None,
        typer.Option(help="Split whose evaluation is shown; test by default, or what there is."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; RUN/report.html by default, or report.html for several runs."
        ),
    ] = None,
) -> None:
    """Write one HTML file that shows what a run was trained on, how training went and what it
    ranks; with several runs, their curves over each other and a paired comparison.

    Example: `sidtune report runs/shop`
    """
    from sidtune.reporting.write import write_report
    from sidtune.runs.files import REPORT

    file = output or (runs[0] / REPORT if len(runs) == 1 else Path(REPORT))
    written = write_report(runs, file, split, said=True)
    console.print(f"Report: {escape(str(written))}", soft_wrap=True)


def leave_report(run: Path, said: bool = True) -> None:
    """Write the report of a run that was just trained or evaluated, where its libraries are
    installed.

    Args:
        said: name the file.
    """
    from sidtune.reporting.write import leave_report as leave

    written = leave(run)
    if written and said:
        console.print(f"Report: {escape(str(written))}", soft_wrap=True)
