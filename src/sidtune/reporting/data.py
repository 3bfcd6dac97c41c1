"""What a run was trained with: tasks and their lengths, histories, SIDs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sidtune.evaluation.report import LONGEST_COUNTED
from sidtune.reporting.charts import steps
from sidtune.reporting.page import Block, Chart, Section, Table
from sidtune.reporting.record import Record
from sidtune.runs.files import TrainingPlan
from sidtune.sids.report.measure import collisions, level_use


def data(record: Record) -> Section | None:
    """Tables of tasks and SID levels, and how long examples and histories are."""
    blocks: list[Block] = []
    for plan in record.plans[-1:]:
        blocks += [_tasks(plan), _lengths(plan)]
    details = record.report.details if record.report else None
    if details and details.histories:
        blocks.append(_histories(details.histories))
    if record.catalogue:
        blocks.append(_levels(record.catalogue.sids))
    return Section("data", "Data", "", blocks) if blocks else None


def _tasks(plan: TrainingPlan) -> Table:
    counts = ("tokens", "labels", "mean length", "longest", "truncated", "dropped")
    rows = [
        [
            name,
            f"{task.examples:,}",
            f"{task.weight:g}",
            f"{task.tokens:,}",
            f"{task.labels:,}",
            f"{task.tokens / max(1, task.examples):.0f}",
            f"{task.longest:,}",
            f"{task.truncated:,}",
            f"{task.dropped:,}",
        ]
        for name, task in plan.tasks.items()
    ]
    note = (
        "Lengths in tokens. A truncated example lost its oldest history items to fit cutoff_len; a"
        " dropped one did not fit even then."
    )
    return Table(["task", "examples", "weight", *counts], rows, "Tasks", note)


def _lengths(plan: TrainingPlan) -> Chart:
    rows: list[dict[str, Any]] = []
    for name, task in plan.tasks.items():
        total = max(1, sum(task.by_length))
        shares = [*(count / total for count in task.by_length), 0.0]
        rows += [
            {"x": x, "share": share, "name": name}
            for x, share in zip(plan.length_edges, shares, strict=True)
        ]
    drawing = steps(rows, list(plan.tasks), ("tokens", "share of the task's examples"))
    return Chart("Length of examples", drawing)


def _histories(histories: dict[str, list[int]]) -> Chart:
    rows: list[dict[str, Any]] = []
    for name, counts in histories.items():
        total = max(1, sum(counts))
        rows += [
            {"x": length, "share": count / total, "name": f"{name} rows"}
            for length, count in enumerate([*counts, 0])
            if length
        ]
    names = [f"{name} rows" for name in histories]
    means = ", ".join(
        f"{name} {np.average(np.arange(len(counts)), weights=counts):.1f}"
        for name, counts in histories.items()
        if sum(counts)
    )
    drawing = steps(rows, names, ("items in the history", "share of rows"))
    longer = any(len(counts) > LONGEST_COUNTED for counts in histories.values())
    mean = f"Mean: {means}."
    note = f" Histories of more than {LONGEST_COUNTED} items are drawn at {LONGEST_COUNTED}."
    return Chart("Length of histories", drawing, mean + note * longer)


def _levels(sids: Sequence[tuple[str, ...]]) -> Table:
    rows = []
    for level in range(max(map(len, sids))):
        use = level_use(sids, level)
        rows.append(
            [
                f"level {level + 1}",
                f"{use['used']:,}",
                "–" if use["dead"] is None else f"{use['dead']:,}",
                f"{use['entropy']:.2f}",
                f"{2 ** use['entropy']:.0f}",
                f"{use['largest']:,}",
            ]
        )
    shared = collisions(sids)
    note = (
        f"{len(sids):,} items, {shared['sids']:,} SIDs; {shared['items_sharing']:,} items share"
        f" theirs, {shared['most_items_of_a_sid']:,} at most. Effective tokens: as many equally"
        " frequent ones have this entropy."
    )
    head = [
        "SID",
        "tokens used",
        "unused",
        "entropy, bits",
        "effective tokens",
        "items of the largest",
    ]
    return Table(head, rows, "SID tokens by level", note)
