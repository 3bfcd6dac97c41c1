"""What each source adds to the ranker, on the validation rows that it was fitted on."""

from __future__ import annotations

from sidtune.ranker.figures import Line
from sidtune.ranker.sources import FEATURES
from sidtune.reporting.charts import intervals
from sidtune.reporting.page import Block, Chart, Section, Table
from sidtune.reporting.record import Record

WITHOUT = "without "
SHOWN_FEATURES = 12


def sources(record: Record) -> Section | None:
    """The ranker without each source, each source alone, and the features most used."""
    if not record.ranked:
        return None
    ranked = record.ranked
    blocks: list[Block] = [*_added(ranked.lines), _table(ranked.lines)]
    if ranked.importance:
        shown = list(ranked.importance.items())[:SHOWN_FEATURES]
        # Another version may have known other features.
        rows = [[FEATURES.get(name, name), f"{share:.1%}"] for name, share in shown]
        note = "Share of the gain of all splits of the trees."
        blocks.append(Table(["feature", "share"], rows, "Features most used", note, folded=True))
    rows = [[name, f"{weight:.2f}"] for name, weight in ranked.weights.items()]
    beside = (
        "" if ranked.mixture is None else f"The mean has weight {ranked.mixture:.2f} beside trees."
    )
    title = "Weights of the sources in their mean"
    blocks.append(Table(["source", "weight"], rows, title, beside, folded=True))
    intro = (
        f"{ranked.rows:,} validation rows, each ranked by a ranker that was fitted on"
        " other users. A source that adds nothing can be left out with rank.sources."
    )
    if ranked.absent:
        intro += f" Nothing is known here of {', '.join(ranked.absent)}."
    return Section("sources", "What each source adds", intro, blocks)


def _added(lines: dict[str, Line]) -> list[Block]:
    lost = {
        name.removeprefix(WITHOUT): line.change
        for name, line in lines.items()
        if name.startswith(WITHOUT) and line.change
    }
    if not lost:
        return []
    order = sorted(lost, key=lambda name: -lost[name].value)
    rows = [{"group": name, "name": "without it", **vars(lost[name])} for name in order]
    drawing = intervals(
        rows,
        order,
        ["without it"],
        "HR@10 that the ranker loses without the source",
        zero_rule=True,
        form="+.4f",
    )
    note = "Paired bootstrap, 95% intervals. To the right of zero, the source helps."
    return [Chart("What the ranker loses without a source", drawing, note)]


def _table(lines: dict[str, Line]) -> Table:
    rows = []
    for name, line in lines.items():
        more = ["–", "–"]
        if change := line.change:
            more = [f"{change.value:+.4f}", f"{change.low:+.4f} to {change.high:+.4f}"]
        label = name if name == "ranker" or name.startswith(WITHOUT) else f"{name} alone"
        figures = (f"{found.value:.4f}" for found in (line.hr, line.ndcg, line.far))
        rows.append([label, *figures, *more])
    head = ["", "HR@10", "NDCG@10", "HR@50", "HR@10, ranker leads", "95%"]
    title = "Ranker, ranker without a source, and sources alone"
    return Table(head, rows, title, width="double")
