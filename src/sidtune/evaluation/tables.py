"""Tables of an evaluation for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.columns import Columns
from rich.console import RenderableType
from rich.table import Table

from sidtune.evaluation.report import Report, Summary
from sidtune.metrics.metrics import CUTOFFS, Estimate, Group


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
        f"ranked in {settings['ranking_seconds']:.0f} s"
    )
    yield from _notes(report)
    yield metrics_table(report)
    name, first = next(iter(report.rankers.items()))
    groups = [
        _groups(f"{name} by\nhistory length", first.by_history, report.list_length),
        _groups(f"{name} by training\nusers of target", first.by_popularity, report.list_length),
    ]
    yield Columns([_lists(report), *groups], padding=(1, 4))


def metrics_table(report: Report) -> RenderableType:
    """HR, NDCG and MRR of every ranker, by SID and by item: side by side where there is room, and
    once where they are equal, because no two items share a SID.
    """
    rankers = report.rankers
    levels = [("sid", "by SID"), ("item", "by item")]
    if all(summary.sid == summary.item for summary in rankers.values()):
        del levels[0]
    tables = [
        _level(rankers, [getattr(summary, level) for summary in rankers.values()], title)
        for level, title in levels
    ]
    return Columns(tables, padding=(1, 4))


def _level(
    rankers: dict[str, Summary], estimates: Sequence[dict[str, Estimate]], title: str
) -> Table:
    model, *others = rankers
    headings = [
        title,
        model,
        "95%",
        *(name.replace(" ", "\n").replace("-", "-\n") for name in others),
    ]
    table = _table(*headings)
    for metric in estimates[0]:
        # At 1 it is HR@1.
        if metric != "NDCG@1":
            first, *rest = (entry[metric] for entry in estimates)
            table.add_row(metric, _value(first), _interval(first), *map(_value, rest))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(
            heading, justify="right" if number else "left", vertical="bottom", no_wrap=True
        )
    return table


def _notes(report: Report) -> Iterator[str]:
    yield f"{report.colliding:.1%} of the targets share their SID with another item"
    left_out = [str(k) for k in CUTOFFS if k > report.settings["beams"]]
    if left_out:
        yield (
            f"K of {', '.join(left_out)} omitted: lists have {report.settings['beams']} positions,"
            " one per beam"
        )
    if counted := report.settings.get("transitions"):
        yield (
            f"transitions: window {counted['window']}, decay {counted['decay']}, chosen on"
            " validation rows"
        )
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
    table = _table(f"top {report.list_length}", "catalogue\ncoverage", "in the\nhistory")
    for name, summary in report.rankers.items():
        table.add_row(name, f"{summary.coverage:.1%}", f"{summary.repeated:.1%}")
    return table


def _groups(what: str, groups: list[Group], cutoff: int) -> Table:
    table = _table(what, "rows", f"HR@{cutoff}", "95%", f"NDCG@{cutoff}", "95%")
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
