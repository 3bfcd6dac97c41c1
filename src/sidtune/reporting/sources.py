"""What each source adds to the ranker, on the validation rows that it was fitted on."""

from __future__ import annotations

from typing import Any

from sidtune.reporting.charts import intervals
from sidtune.reporting.page import Block, Chart, Section, Table
from sidtune.reporting.record import Record

WITHOUT = "without "
SHOWN_FEATURES = 12


def sources(record: Record) -> Section | None:
    """The ranker without each source, each source alone, and the features most used."""
    if not record.ranked:
        return None
    lines: dict[str, dict[str, Any]] = record.ranked["lines"]
    blocks: list[Block] = [*_added(lines), _table(lines)]
    importance: dict[str, float] = record.ranked.get("importance", {})
    if importance:
        rows = [[name, f"{share:.1%}"] for name, share in list(importance.items())[:SHOWN_FEATURES]]
        note = "Share of the gain of all splits of the trees."
        blocks.append(Table(["feature", "share"], rows, "Features most used", note, "narrow"))
    weights: dict[str, float] = record.ranked.get("weights", {})
    if weights:
        rows = [[name, f"{weight:.2f}"] for name, weight in weights.items()]
        blocks.append(Table(["source", "weight"], rows, "Weights of the mixture", width="narrow"))
    intro = (
        f"{record.ranked['rows']:,} validation rows, each ranked by a ranker that was fitted on"
        " other users. A source that adds nothing can be left out with rank.sources."
    )
    absent = record.ranked.get("absent", [])
    if absent:
        intro += f" Nothing is known here of {', '.join(absent)}."
    return Section("sources", "What each source adds", intro, blocks)


def _added(lines: dict[str, dict[str, Any]]) -> list[Block]:
    rows = [
        {
            "group": name.removeprefix(WITHOUT),
            "name": "added",
            "value": line["change"]["value"],
            "low": line["change"]["low"],
            "high": line["change"]["high"],
        }
        for name, line in lines.items()
        if name.startswith(WITHOUT) and line["change"]
    ]
    if not rows:
        return []
    rows.sort(key=lambda row: -row["value"])
    drawing = intervals(
        rows,
        [row["group"] for row in rows],
        ["added"],
        "HR@10 that the ranker loses without the source",
        zero_rule=True,
        form="+.4f",
    )
    note = "Paired bootstrap, 95% intervals. To the right of zero, the source helps."
    return [Chart("What the ranker loses without a source", drawing, note)]


def _table(lines: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for name, line in lines.items():
        change = line["change"]
        more = ["–", "–"]
        if change:
            more = [f"{change['value']:+.4f}", f"{change['low']:+.4f} to {change['high']:+.4f}"]
        label = name if name == "ranker" or name.startswith(WITHOUT) else f"{name} alone"
        rows.append([label, *(f"{line[key]['value']:.4f}" for key in ("hr", "ndcg", "far")), *more])
    head = ["", "HR@10", "NDCG@10", "HR@50", "HR@10, ranker more", "95%"]
    return Table(head, rows, "Ranker, ranker without a source, and sources alone", width="double")
