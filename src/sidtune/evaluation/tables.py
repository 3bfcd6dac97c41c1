"""Tables of an evaluation for the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table

from sidtune.base.durations import measured_duration
from sidtune.config.search import BEAMS, MAX_TOKENS
from sidtune.evaluation.report import Report
from sidtune.metrics.metrics import CUTOFFS, GROUP_CUTOFF, Estimate
from sidtune.metrics.metrics import Group as RowGroup
from sidtune.metrics.repeats import hardly_any

SHOWN_CUTOFFS = (1, 5, 10, 50)
# A share of a list's places that is worth a word.
WASTED = 0.01


def render(report: Report) -> Iterator[RenderableType]:
    """Metrics of every ranker by SID and by item, then the first one's by group, and what the lists
    are made of.
    """
    settings = report.settings
    # Rankers that score every item have no beams.
    lists = (
        f"{settings['beams']} beams" if "normalize" in settings else f"lists of {settings['beams']}"
    )
    yield (
        f"[bold]{settings['split']}[/bold]: {report.rows:,} rows, {report.items:,} items, {lists}, "
        f"ranked in {measured_duration(settings['ranking_seconds'])}"
    )
    yield from _notes(report)
    yield metrics_table(report)
    name, first = next(iter(report.rankers.items()))
    kinds = {
        f"{name} by how the\ntarget is reached": first.by_reach,
        f"{name} by\nhistory length": first.by_history,
        f"{name} by training\nusers of target": first.by_popularity,
    }
    groups = [_groups(title, found, report.list_length) for title, found in kinds.items() if found]
    yield Columns([*groups, _lists(report)], padding=(1, 4))


def told_without_history(
    report: Report, rows: Path | None = None, train: Path | None = None
) -> Iterator[str]:
    """Where the lists hold items of the history, though hardly any user has an item twice: a line
    that says so, and the command that leaves the history out.

    Validation rows or training rows decide, never test rows.

    Args:
        rows, train: files that were given in place of those of the run's configuration.
    """
    settings, repeating = report.settings, report.details and report.details.repeating
    places = next(iter(report.rankers.values())).repeated
    if settings["exclude_history"] or not repeating or not hardly_any(repeating):
        return
    if places < WASTED:
        return
    few = "Few users have" if repeating.value else "No user has"
    yield f"{few} an item twice; {places:.0%} of the top 10 is history. To exclude it:"
    folder = PurePath(settings["model"])
    options = list(_options({**settings, "rows": rows, "train": train}))
    output = ("--exclude-history", "--output", str(folder / "without-history"))
    yield f"  {shlex.join(['sidtune', 'evaluate', str(folder), *options, *output])}"


def _options(settings: Mapping[str, Any]) -> Iterator[str]:
    """The options of an evaluation that are not the command's defaults."""
    # Without --beams, lists are as long as those that the ranker was fitted on.
    beams = None if "ranker_sha256" in settings else BEAMS
    defaults = {
        "split": "test",
        "beams": beams,
        "normalize": "full",
        "limit": None,
        "candidates": None,
        "rows": None,
        "train": None,
        "max_tokens": MAX_TOKENS,
    }
    for name, default in defaults.items():
        value = settings.get(name, default)
        if value != default:
            yield from (f"--{name.replace('_', '-')}", str(value))
    for name in ("both_directions", "no_rank"):
        if settings.get(name):
            yield f"--{name.replace('_', '-')}"


def metrics_table(report: Report) -> RenderableType:
    """HR and NDCG of every ranker, a line each, by item; by SID too where the two differ, because
    items share a SID.
    """
    levels = [("item", "by item"), ("sid", "by SID")]
    if all(summary.sid == summary.item for summary in report.rankers.values()):
        del levels[1]
    return Group(*(_level(report, level, title) for level, title in levels))


def _level(report: Report, level: str, title: str) -> Table:
    depth = report.settings["beams"]
    cutoffs = [k for k in SHOWN_CUTOFFS if k <= depth]
    main = max(k for k in cutoffs if k <= GROUP_CUTOFF)
    headings = [title]
    for k in cutoffs:
        headings += [f"HR@{k}", "95%"] if k == main else [f"HR@{k}"]
    table = plain_table(*headings, f"NDCG@{main}")
    for name, summary in report.rankers.items():
        metrics: dict[str, Estimate] = getattr(summary, level)
        cells = []
        for k in cutoffs:
            estimate = metrics[f"HR@{k}"]
            cells += [_value(estimate), _interval(estimate)] if k == main else [_value(estimate)]
        table.add_row(name, *cells, _value(metrics[f"NDCG@{main}"]))
    return table


def plain_table(*headings: str) -> Table:
    """A table without lines; its first column is text, the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(
            heading, justify="right" if number else "left", vertical="bottom", no_wrap=True
        )
    return table


def _notes(report: Report) -> Iterator[str]:
    if report.colliding:
        yield f"{report.colliding:.1%} of the targets share their SID with another item"
    left_out = [str(k) for k in CUTOFFS if k > report.settings["beams"]]
    if left_out:
        yield (
            f"K of {', '.join(left_out)} omitted: lists have {report.settings['beams']} positions,"
            " one per beam"
        )
    for name, chosen in report.settings.get("chosen", {}).items():
        told = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in chosen.items())
        yield f"{name}: {told} (chosen on validation rows)"
    if report.too_long:
        yield (
            f"{report.too_long:,} rows have a prompt that exceeds cutoff_len; they count as misses"
        )
    if report.excluded:
        yield (
            f"{report.excluded:,} rows have a target that is excluded from the lists; they count as"
            " misses"
        )


def _lists(report: Report) -> Table:
    table = plain_table(f"top {report.list_length}", "catalogue\ncoverage", "in the\nhistory")
    for name, summary in report.rankers.items():
        table.add_row(name, f"{summary.coverage:.1%}", f"{summary.repeated:.1%}")
    return table


def _groups(what: str, groups: list[RowGroup], cutoff: int) -> Table:
    table = plain_table(what, "rows", f"HR@{cutoff}", "95%", f"NDCG@{cutoff}", "95%")
    for group in groups:
        estimates = (group.hr, group.ndcg)
        table.add_row(
            group.name,
            f"{group.rows:,}",
            *(cell for e in estimates for cell in (_value(e), _interval(e))),
        )
    return table


def _value(estimate: Estimate) -> str:
    return f"{estimate.value:.4f}"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.3f}–{estimate.high:.3f}"
