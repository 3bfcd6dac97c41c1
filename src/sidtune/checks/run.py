"""`sidtune check`: run all checks and collect their findings, without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import wraps

from rich.markup import escape

from sidtune.base.errors import UserError
from sidtune.base.keys import named
from sidtune.base.terminal import console
from sidtune.checks import data, encoding, leaks, model, options, whole_text
from sidtune.checks.finding import Check, Finding, Severity
from sidtune.inputs import Inputs

# Checks that read every row; their findings are cached. All others run at every start.
ROW_CHECKS: list[Check] = [
    data.interactions,
    data.train_rows,
    data.valid_rows,
    data.test_rows,
    leaks.leakage,
    encoding.encoding,
    encoding.instructions,
    encoding.sequences,
    whole_text.chat_template,
    whole_text.whole_prompt,
]
CHECKS: list[Check] = [
    data.catalogue,
    data.titles,
    model.model,
    model.weights,
    model.adapters,
    model.optimizer,
    model.vocabulary,
    encoding.templates,
    whole_text.clock,
    *ROW_CHECKS,
    options.idle_options,
    options.precision,
    options.loss,
]


# Training says these itself: with exact numbers once it has its plan, and whether a finished run is
# this very one.
BEFORE_TRAINING: list[Check] = [options.warmup, options.output]


def run_checks(inputs: Inputs) -> list[Finding]:
    """The findings of all checks, errors first; a check that fails becomes an error, and the others
    still run.
    """
    return _findings(inputs, [*CHECKS, *BEFORE_TRAINING])


def refuse_errors(inputs: Inputs) -> None:
    """Run all checks before training: raise all errors at once, and print warnings and announced
    notes.

    Findings about rows are cached until the files or their settings change.

    Raises:
        UserError: lists all errors.
    """
    findings = _findings(
        inputs, [_remembered(check) if check in ROW_CHECKS else check for check in CHECKS]
    )
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        lines = [f"{error.message}\n  {error.remedy}".rstrip() for error in errors]
        raise UserError("\n".join(lines), "`sidtune check` also shows warnings and notes.")
    for finding in findings:
        if finding.severity == "warning" or finding.announced:
            said = f"{finding.severity}: {finding.where}: {finding.message}. {finding.remedy}"
            console.print(escape(named(said.rstrip())))


def _findings(inputs: Inputs, checks: Sequence[Check]) -> list[Finding]:
    findings: list[Finding] = []
    failed: set[str] = set()
    for check in checks:
        try:
            findings.extend(check(inputs))
        except UserError as error:
            # A broken file fails several checks with the same message; report it once.
            if error.message not in failed:
                findings.append(Finding("error", check.__name__, error.message, [], error.hint))
            failed.add(error.message)
    order: list[Severity] = ["error", "warning", "note"]
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _remembered(check: Check) -> Check:
    """The check with cached findings; failures are not cached."""

    @wraps(check)
    def kept(inputs: Inputs) -> Iterator[Finding]:
        name = f"check_{check.__name__}"
        found = inputs.mixture.remembered(
            name, lambda: [asdict(finding) for finding in check(inputs)]
        )
        return (Finding(**finding) for finding in found)

    return kept
