"""The report as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table


def render(figures: dict[str, Any]) -> Iterator[RenderableType]:
    """What `measure` found, for people."""
    yield _levels(figures)
    shared = figures["collisions"]
    yield (
        f"{figures['items']:,} items, {shared['sids']:,} SIDs: {shared['items_sharing']:,} items"
        f" share theirs (collision rate {shared['share']:.2%}), {shared['most_items_of_a_sid']:,}"
        " at most."
    )
    if fitted := figures.get("fit"):
        yield (
            f"Nearest codes alone: {fitted['items_sharing_the_nearest_sid']:,} SIDs fewer than"
            f" items. The rule {fitted['collisions']} moved {fitted['reassigned']:,} items,"
            f" {fitted['surplus']:,} to another prefix."
        )
    if "likeness" in figures:
        yield _likeness(figures["likeness"], figures["likeness_of_random_sids"])
    if "common_prefixes" in figures:
        yield _prefixes(figures["common_prefixes"])
    if "quick" in figures:
        yield _quick(figures["quick"])


def _levels(figures: dict[str, Any]) -> Table:
    table = Table(title="Use of the codes")
    for name in ("level", "used codes", "dead codes", "entropy (bits)", "Gini", "largest cluster"):
        table.add_column(name, justify="right")
    for number, level in enumerate(figures["levels"], start=1):
        dead = "–" if level["dead"] is None else f"{level['dead']:,}"
        cells = (f"{level['entropy']:.2f}", f"{level['gini']:.2f}", f"{level['largest']:,}")
        table.add_row(str(number), f"{level['used']:,}", dead, *cells)
    return table


def _likeness(own: dict[str, list[float]], random: dict[str, list[float]]) -> Table:
    table = Table(title="Items with a common prefix, beside the same SIDs dealt out at random")
    for name in (
        "tokens in common",
        "distortion",
        "random",
        "10 nearest neighbours kept",
        "random",
    ):
        table.add_column(name, justify="right")
    rows = zip(
        own["distortion"],
        random["distortion"],
        own["neighbours_kept"],
        random["neighbours_kept"],
        strict=True,
    )
    for length, cells in enumerate(rows, start=1):
        table.add_row(str(length), *(f"{cell:.3f}" for cell in cells))
    return table


def _quick(found: dict[str, Any]) -> Table:
    rows = found["index"]["rows"]
    table = Table(title=f"A small model, trained briefly: {rows:,} validation rows, by item")
    table.add_column("metric")
    for name in ("this index", "95%", "random SIDs", "95%"):
        table.add_column(name, justify="right")
    for metric in (name for name in found["index"] if name != "rows"):
        cells = []
        for name in ("index", "random_sids"):
            figure = found[name][metric]
            cells += [f"{figure['value']:.4f}", f"{figure['low']:.3f}–{figure['high']:.3f}"]
        table.add_row(metric, *cells)
    return table


def _prefixes(groups: list[dict[str, Any]]) -> Table:
    table = Table(title="The largest groups of a common prefix")
    table.add_column("prefix")
    table.add_column("items", justify="right")
    table.add_column("titles")
    for group in groups:
        titles = "\n".join(escape(title[:80]) for title in group["titles"])
        table.add_row(escape(group["prefix"]), f"{group['items']:,}", titles)
    return table
