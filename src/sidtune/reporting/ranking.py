"""What is ranked: by K beside the baselines, by group of rows, and SIDs token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidtune.evaluation.report import Report, Summary
from sidtune.metrics.metrics import GROUP_CUTOFF, Estimate, Group
from sidtune.reporting.charts import intervals, ladder, lines
from sidtune.reporting.page import Block, Chart, Section, Table
from sidtune.reporting.record import Record

# Baselines need no training of ours; the best of them is the one to beat.
OWN = ("ranker", "model", "ranker without model")
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
Named = dict[str, Summary]


def ranking(records: Sequence[Record]) -> Section | None:
    """Metrics by K, and by group of rows."""
    named = shown(records)
    if not named:
        return None
    report = next(record.report for record in records if record.report)
    blocks: list[Block] = [_by_k(named, metric) for metric in ("HR", "NDCG")]
    blocks.append(_table(named, "item", "All rankers, by item"))
    if any(summary.sid != summary.item for summary in named.values()):
        blocks.append(_table(named, "sid", "The same by SID"))
    few = few_of(named) if len(records) == 1 else named
    for kind, (title, note) in GROUPS.items():
        blocks += _groups(few, named, kind, title, note, report.list_length)
    if len(records) == 1:
        blocks.append(_lists(report))
    return Section("ranking", "Ranking", _intro(report), blocks)


def shown(records: Sequence[Record]) -> Named:
    """All rankers of one run; of several runs, the first one of each, and the best baseline of the
    first run.
    """
    reports = {record.name: record.report for record in records if record.report}
    if len(records) == 1:
        return next((dict(report.rankers) for report in reports.values()), {})
    firsts = {name: next(iter(report.rankers.values())) for name, report in reports.items()}
    found = next((best_baseline(report.rankers) for report in reports.values()), None)
    return {**firsts, **({f"{found[0]} (baseline)": found[1]} if found else {})}


def best_baseline(rankers: Named) -> tuple[str, Summary] | None:
    """The baseline with the highest NDCG, by item, at the cutoff of groups or the next smaller."""
    baselines = [(name, summary) for name, summary in rankers.items() if name not in OWN]
    return max(baselines, key=lambda entry: main(entry[1], "NDCG").value, default=None)


def main(summary: Summary, metric: str) -> Estimate:
    """A metric by item at K = 10, or at the largest K that short lists have."""
    cutoffs = [k for k in cutoffs_of(summary) if k <= GROUP_CUTOFF]
    return summary.item[f"{metric}@{max(cutoffs)}"]


def cutoffs_of(summary: Summary) -> list[int]:
    """The values of K, ascending."""
    return sorted(int(name[3:]) for name in summary.item if name.startswith("HR@"))


def few_of(rankers: Named) -> Named:
    """Our own rankers and the best baseline."""
    best = best_baseline(rankers)
    own = {name: summary for name, summary in rankers.items() if name in OWN}
    return {**own, **({best[0]: best[1]} if best else {})}


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


def _by_k(named: Named, metric: str) -> Chart:
    cutoffs = cutoffs_of(next(iter(named.values())))
    rows = []
    for name, summary in named.items():
        for k in cutoffs_of(summary):
            found = summary.item[f"{metric}@{k}"]
            rows.append(
                {"x": k, "y": found.value, "low": found.low, "high": found.high, "name": name}
            )
    spec = lines(
        rows, list(named), ("K", f"{metric}@K"), points=True, ticks=cutoffs, zero=True, form=".4f"
    )
    return Chart(f"{metric}@K by item", spec, "Bands: 95% intervals.")


def _table(named: Named, level: str, title: str) -> Table:
    cutoffs = sorted({k for summary in named.values() for k in cutoffs_of(summary)})
    names = [f"{metric}@{k}" for metric in ("HR", "NDCG") for k in cutoffs] + ["MRR"]
    rows = []
    for name, summary in named.items():
        metrics: dict[str, Estimate] = getattr(summary, level)
        rows.append([name, *(_with_interval(metrics.get(metric)) for metric in names)])
    return Table(["", *names], rows, title)


def _groups(few: Named, every: Named, kind: str, title: str, note: str, k: int) -> list[Block]:
    order = list(dict.fromkeys(group.name for s in few.values() for group in getattr(s, kind)))
    if not order:
        return []
    counts = {group.name: group.rows for s in few.values() for group in getattr(s, kind)}
    label = {name: f"{name} ({counts[name]:,} rows)" for name in order}
    rows = [
        {
            "group": label[group.name],
            "name": name,
            "value": group.hr.value,
            "low": group.hr.low,
            "high": group.hr.high,
        }
        for name, summary in few.items()
        for group in getattr(summary, kind)
    ]
    spec = intervals(rows, [label[name] for name in order], list(few), f"HR@{k} by item")
    found: dict[str, dict[str, Group]] = {
        name: {group.name: group for group in getattr(summary, kind)}
        for name, summary in every.items()
    }
    cells = [
        [
            f"{group} · {metric}@{k}",
            f"{counts[group]:,}",
            *(
                _with_interval(getattr(own[group], metric.lower()) if group in own else None)
                for own in found.values()
            ),
        ]
        for metric in ("HR", "NDCG")
        for group in order
    ]
    return [Chart(title, spec, note, Table(["", "rows", *every], cells))]


def _lists(report: Report) -> Table:
    rows = [
        [name, f"{summary.coverage:.1%}", f"{summary.repeated:.1%}"]
        for name, summary in report.rankers.items()
    ]
    head = ["", "catalogue coverage", "places with an item of the history"]
    return Table(head, rows, f"What the first {report.list_length} places hold")


def _one_ladder(report: Report) -> list[Block]:
    assert report.details
    model = report.rankers.get("model")
    names = {"first": "first SID", "among": "one of the first ten", "listed": "any SID listed"}
    found = report.details.levels
    stages = [_stage(level.tokens, len(found) - 1) for level in found][1:]
    rows: list[dict[str, Any]] = [
        {"stage": stage, "name": label, "value": getattr(level, name).value}
        for stage, level in zip(stages, found[1:], strict=True)
        for name, label in names.items()
    ]
    cells = [
        [stage, *(_with_interval(getattr(level, name)) for name in names), f"{level.mass:.4f}"]
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
            for name, label in names.items()
        ]
        cells.append(["item", *(_with_interval(hits[name]) for name in names), "–"])
    spec = ladder(rows, stages, list(names.values()), ("agrees in", "share of rows"))
    head = ["agrees in", *names.values(), "probability"]
    note = (
        "Probability: what the model gives the SIDs of its list that agree, mean of the rows; what"
        " is missing to 1 lies on SIDs that are not listed, or on texts that are no SID."
    )
    chart = Chart("Agreement with the target's SID", spec, "A steep step is the token to improve.")
    return [chart, Table(head, cells, "The same as figures", note)]


def _ladders(known: dict[str, Report]) -> list[Block]:
    rows: list[dict[str, Any]] = []
    stages: list[str] = []
    for name, report in known.items():
        assert report.details
        for level in report.details.levels[1:]:
            stage = _stage(level.tokens, len(report.details.levels) - 1)
            stages.append(stage)
            rows.append({"stage": stage, "name": name, "value": level.among.value})
    order = list(dict.fromkeys(stages))
    spec = ladder(rows, order, list(known), ("agrees in", "share of rows"))
    return [Chart("One of the model's first ten SIDs agrees", spec)]


def _stage(tokens: int, depth: int) -> str:
    if tokens == depth:
        return "all tokens"
    return "1 token" if tokens == 1 else f"{tokens} tokens"


def _intro(report: Report) -> str:
    parts = [
        f"{report.rows:,} rows of {report.settings.get('split', '–')} against {report.items:,}"
        " items. Intervals are of 95%."
    ]
    if report.colliding:
        parts.append(f"{report.colliding:.1%} of the targets share their SID with another item.")
    if report.too_long:
        parts.append(f"{report.too_long:,} prompts exceed cutoff_len and count as misses.")
    if report.excluded:
        parts.append(f"{report.excluded:,} targets are excluded from the lists: misses too.")
    return " ".join(parts)


def _with_interval(found: Estimate | None) -> str:
    return "–" if found is None else f"{found.value:.4f} ({found.low:.3f}–{found.high:.3f})"
