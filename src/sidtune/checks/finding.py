"""The findings of checks, and how they are displayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.markup import escape

from sidtune.inputs import Inputs

Severity = Literal["error", "warning", "note"]
# Examples shown per finding.
SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One error, warning or note.

    Args:
        where: the file or configuration key concerned.
        message: what was found.
        examples: the first offending rows.
        remedy: what to do next; empty for notes.
        announced: whether training prints it too, although it is only a note.
    """

    severity: Severity
    where: str
    message: str
    examples: list[str] = field(default_factory=list)
    remedy: str = ""
    announced: bool = False


Check = Callable[[Inputs], Iterator[Finding]]


def render(findings: Sequence[Finding]) -> Iterator[str]:
    """Rich markup lines: each finding with its examples and remedy, then the counts."""
    styles = {"error": "bold red", "warning": "bold yellow", "note": "dim"}
    for finding in findings:
        yield (
            f"[{styles[finding.severity]}]{finding.severity}[/] {escape(finding.where)}:"
            f" {escape(finding.message)}"
        )
        yield from (f"    {escape(example)}" for example in finding.examples)
        if finding.remedy:
            yield f"    → {escape(finding.remedy)}"
    counts = {name: sum(finding.severity == name for finding in findings) for name in styles}
    yield ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())


def exit_status(findings: Sequence[Finding]) -> int:
    """0 if there are only notes, 1 for warnings, 2 for errors."""
    severities = {finding.severity for finding in findings}
    return 2 if "error" in severities else 1 if "warning" in severities else 0
