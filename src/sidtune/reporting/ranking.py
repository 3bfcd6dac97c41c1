"""What is ranked: by K beside the baselines, by group of rows, and SIDs token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sidtune.evaluation.report import Report, Summary
from sidtune.metrics.metrics import GROUP_CUTOFF, Estimate, Group
from sidtune.reporting.charts import intervals, ladder, lines
from sidtune.reporting.page import Block, Cell, Chart, Section, Table
from sidtune.reporting.record import Record

# In place of a number of rows that is not the same for all.
VARIOUS = "–"
# All other rankers of an evaluation are baselines.
OWN = ("ranker", "model", "ranker without model")
SHOWN_CUTOFFS = (1, 5, 10, 50)
GROUPS = {
    "by_reach": (
        "By how the target can be reached",
        "The first that is true of the target: it stands in the history; it came directly after the"
        " history's last item in training; a training user has it beside an item of the history;"
        " some training user has it; none has.",
    ),
    "by_history": ("By length of history", "Number of items in the history."),
    "by_popularity": ("By popularity of the target", "Number of the target's training users."),
}
# Which SIDs of a list are looked at, by the name of a `Level`'s figure.
PLACES = {"first": "first SID", "among": "best of the first ten", "listed": "best of all listed"}


class Named(NamedTuple):
    """A ranker as charts and tables call it."""

    name: str
    summary: Summary
    baseline: bool


def ranking(records: Sequence[Record]) -> Section | None:
    """Metrics by K, and by group of rows."""
    every = shown(records)
    if not every:
        return None
    report = next(record.report for record in records if record.report)
    blocks: list[Block] = [_by_k(every, metric) for metric in ("HR", "NDCG")]
    if len(records) == 1:
        blocks.append(_lists(report))
    for kind, (title, note) in GROUPS.items():
        blocks += _groups(every, kind, title, note, report.list_length)
    blocks.append(_table(every, "item", "All rankers, by item"))
    if any(line.summary.sid != line.summary.item for line in every):
        blocks.append(_table(every, "sid", "The same by SID", folded=True))
    return Section("ranking", "Ranking", _intro(report), blocks)


def shown(records: Sequence[Record]) -> list[Named]:
    """All rankers of one run; of several runs, the first one and the model of each, and the best
    baseline of the first run.
    """
    runs = {record.name: lines_of(record.report) for record in records if record.report}
    if len(records) == 1:
        return next(iter(runs.values()), [])
    firsts = [own[0]._replace(name=name, baseline=False) for name, own in runs.items()]
    models = [
        line._replace(name=f"{name}, model alone")
        for name, own in runs.items()
        for line in own[1:]
        if line.name == "model"
    ]
    best = best_baseline(next(iter(runs.values()), []))
    return [*firsts, *models, *([best] if best else [])]


def lines_of(report: Report) -> list[Named]:
    """The rankers of an evaluation."""
    return [Named(name, summary, name not in OWN) for name, summary in report.rankers.items()]


def best_baseline(lines: Sequence[Named]) -> Named | None:
    """The baseline with the highest NDCG, by item, at the cutoff of groups or the next smaller."""
    baselines = [line for line in lines if line.baseline]
    return max(baselines, key=lambda line: main(line.summary, "NDCG").value, default=None)


def main(summary: Summary, metric: str) -> Estimate:
    """A metric by item at the main cutoff."""
    return summary.item[f"{metric}@{main_cutoff(summary)}"]


def main_cutoff(summary: Summary) -> int:
    """K = 10, or the largest K that short lists have."""
    return max(k for k in cutoffs_of(summary) if k <= GROUP_CUTOFF)


def cutoffs_of(summary: Summary) -> list[int]:
    """The values of K, ascending."""
    return sorted(int(name[3:]) for name in summary.item if name.startswith("HR@"))


def levels(records: Sequence[Record]) -> Section | None:
    """Where the model loses the target's SID, token by token."""
    known = {
        record.name: record.report
        for record in records
        if record.report and record.report.details and record.report.details.levels
    }
    if not known:
        return None
    blocks = _one_ladder(next(iter(known.values()))) if len(records) == 1 else _ladders(known)
    intro = (
        "The model's own order, before any ranker: how often its SIDs agree with the target's in"
        " the first token, the first two, and so on. The last stage is the item, which is not"
        " determined by a SID that several items share."
    )
    return Section("levels", "Where the SID is lost", intro, blocks)


def _by_k(every: Sequence[Named], metric: str) -> Chart:
    # All bands would hide each other.
    banded = {line.name for line in (every[0], best_baseline(every)) if line}
    rows: list[dict[str, Any]] = []
    for name, summary, baseline in every:
        for k in cutoffs_of(summary):
            found = summary.item[f"{metric}@{k}"]
            row = {"x": k, "y": found.value, "name": name, "low": found.low, "high": found.high}
            rows.append({**row, "dashed": baseline, "band": name in banded})
    names, ticks = [line.name for line in every], cutoffs_of(every[0].summary)
    drawing = lines(
        rows, names, ("K", f"{metric}@K"), points=True, ticks=ticks, zero=True, form=".4f"
    )
    note = "Dashed: baselines. Bands: 95% intervals of the first ranker and the best baseline."
    return Chart(f"{metric}@K by item", drawing, note)


def _table(every: Sequence[Named], level: str, title: str, folded: bool = False) -> Table:
    cutoffs = [k for k in SHOWN_CUTOFFS if k in cutoffs_of(every[0].summary)]
    names = [f"HR@{k}" for k in cutoffs] + [f"NDCG@{k}" for k in cutoffs[1:]] + ["MRR"]
    rows = []
    for line in every:
        metrics: dict[str, Estimate] = getattr(line.summary, level)
        rows.append([line.name, *(_with_interval(metrics.get(name)) for name in names)])
    return Table(["", *names], rows, title, folded=folded)


def _groups(every: Sequence[Named], kind: str, title: str, note: str, k: int) -> list[Block]:
    """A chart of our own rankers and the best baseline, with a table of all."""
    found: dict[str, dict[str, Group]] = {
        line.name: {group.name: group for group in getattr(line.summary, kind)} for line in every
    }
    counts: dict[str, str] = {}
    for own in found.values():
        for name, group in own.items():
            rows = f"{group.rows:,}"
            # Several runs may have ranked other rows.
            counts[name] = rows if counts.get(name, rows) == rows else VARIOUS
    if not counts:
        return []
    best = best_baseline(every)
    few = [line.name for line in every if not line.baseline or line == best]
    label = {
        name: name if rows == VARIOUS else f"{name} ({rows} rows)" for name, rows in counts.items()
    }
    bars = [
        {"group": label[group], "name": name, **_ends(own.hr)}
        for name in few
        for group, own in found[name].items()
    ]
    drawing = intervals(bars, list(label.values()), few, f"HR@{k} by item", palette=list(found))
    cells = [
        [
            f"{group}, {metric}@{k}",
            rows,
            *(
                _with_interval(getattr(own[group], metric.lower()) if group in own else None)
                for own in found.values()
            ),
        ]
        for metric in ("HR", "NDCG")
        for group, rows in counts.items()
    ]
    return [Chart(title, drawing, note, Table(["", "rows", *found], cells))]


def _ends(found: Estimate) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _lists(report: Report) -> Table:
    rows = [
        [name, f"{summary.coverage:.1%}", f"{summary.repeated:.1%}"]
        for name, summary in report.rankers.items()
    ]
    head = ["", "of the catalogue", "in the history"]
    return Table(head, rows, f"What the first {report.list_length} places hold", width="narrow")


def _one_ladder(report: Report) -> list[Block]:
    assert report.details
    model = report.rankers.get("model")
    found = report.details.levels
    stages = [_stage(level.tokens, len(found) - 1) for level in found][1:]
    rows: list[dict[str, Any]] = [
        {"stage": stage, "name": label, "value": getattr(level, name).value}
        for stage, level in zip(stages, found[1:], strict=True)
        for name, label in PLACES.items()
    ]
    cells = [
        [stage, *(_with_interval(getattr(level, name)) for name in PLACES), f"{level.mass:.4f}"]
        for stage, level in zip(["any SID", *stages], found, strict=True)
    ]
    if model:
        depths = {"first": 1, "among": GROUP_CUTOFF, "listed": report.settings["beams"]}
        hits = {
            name: model.item[f"HR@{max(k for k in cutoffs_of(model) if k <= depth)}"]
            for name, depth in depths.items()
        }
        stages.append("item")
        rows += [
            {"stage": "item", "name": label, "value": hits[name].value}
            for name, label in PLACES.items()
        ]
        cells.append(["item", *(_with_interval(hits[name]) for name in PLACES), "–"])
    drawing = ladder(rows, stages, list(PLACES.values()), ("agrees in", "share of rows"))
    head = ["agrees in", *PLACES.values(), "probability"]
    note = (
        "Probability: what the model gives the SIDs of its list that agree, mean of the rows; what"
        " is missing to 1 lies on SIDs that are not listed, or on texts that are no SID."
    )
    chart = Chart(
        "Agreement with the target's SID", drawing, "A steep step is the token to improve."
    )
    return [chart, Table(head, cells, "The same as figures", note, width="double")]


def _ladders(known: dict[str, Report]) -> list[Block]:
    """A chart for each place in the list, a line for each run."""
    stages: list[str] = []
    rows: dict[str, list[dict[str, Any]]] = {place: [] for place in PLACES}
    for name, report in known.items():
        assert report.details
        found = report.details.levels
        for level in found[1:]:
            stage = _stage(level.tokens, len(found) - 1)
            stages.append(stage)
            for place in PLACES:
                value = getattr(level, place).value
                rows[place].append({"stage": stage, "name": name, "value": value})
    order, axes = list(dict.fromkeys(stages)), ("agrees in", "share of rows")
    return [
        Chart(f"Agreement of the {title}", ladder(rows[place], order, list(known), axes))
        for place, title in PLACES.items()
    ]


def _stage(tokens: int, depth: int) -> str:
    if tokens == depth:
        return "all tokens"
    return "1 token" if tokens == 1 else f"{tokens} tokens"


def _intro(report: Report) -> str:
    parts = [
        f"{report.rows:,} {report.settings.get('split', '')} rows against {report.items:,}"
        " items. Intervals are of 95%."
    ]
    if report.colliding:
        parts.append(f"{report.colliding:.1%} of the targets share their SID with another item.")
    if report.too_long:
        parts.append(f"{report.too_long:,} prompts exceed cutoff_len and count as misses.")
    if report.excluded:
        parts.append(f"{report.excluded:,} targets are excluded from the lists: misses too.")
    return " ".join(parts)


def _with_interval(found: Estimate | None) -> Cell:
    return "–" if found is None else (f"{found.value:.4f}", f"{found.low:.3f}–{found.high:.3f}")
