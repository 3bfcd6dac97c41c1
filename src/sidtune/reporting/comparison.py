"""Several runs on the rows they share: which differences are statistically significant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sidtune.data.rows import Split
from sidtune.evaluation.compare import Comparison, Difference, compare, read_evaluated
from sidtune.reporting.charts import intervals
from sidtune.reporting.page import Block, Chart, Section, Table
from sidtune.reporting.record import Record


def comparison(records: Sequence[Record]) -> Section | None:
    """Each run against the first, by a paired bootstrap; None where fewer than two are evaluated,
    or not on the same split.

    Raises:
        UserError: for runs that share no rows.
    """
    evaluated = [record for record in records if record.report]
    if len(evaluated) < 2 or len({_split(record) for record in evaluated}) > 1:
        return None
    first, *others = [
        replace(read_evaluated(record.folder, _split(record)), name=record.name)
        for record in evaluated
    ]
    found = compare(first, others)
    blocks: list[Block] = [_chart(first.name, found)]
    for entry in found:
        blocks += [_table(entry), _by_sid(entry)]
    rows = found[0].rows
    intro = (
        f"Differences from {first.name} on {rows:,} shared rows: means and 95% intervals of a"
        " paired bootstrap. An interval that excludes zero is statistically significant; of many"
        " comparisons, one in twenty is so by chance."
    )
    return Section("comparison", "Paired comparison", intro, blocks)


def _split(record: Record) -> Split:
    assert record.report
    split: Split = record.report.settings["split"]
    return split


def _chart(first: str, found: Sequence[Comparison]) -> Chart:
    rows = [
        {
            "group": entry.metric,
            "name": comparison.other,
            "value": entry.difference,
            "low": entry.low,
            "high": entry.high,
        }
        for comparison in found
        for entry in _by(comparison, "item")
    ]
    metrics = list(dict.fromkeys(row["group"] for row in rows))
    drawing = intervals(
        rows,
        [str(metric) for metric in metrics],
        [comparison.other for comparison in found],
        f"difference from {first}",
        zero_rule=True,
        form="+.4f",
    )
    return Chart(f"Differences from {first}, by item", drawing, width="double")


def _table(found: Comparison) -> Table:
    rows = [_cells(entry.metric, found.rows, entry) for entry in _by(found, "item")]
    for group in found.by_reach:
        rows += [
            _cells(f"{entry.metric}, target {group.reach}", group.rows, entry)
            for entry in group.differences
        ]
    left_out = [
        f"{rows:,} rows of {name} are left out, which other runs lack."
        for name, rows in (
            (found.first, found.first_left_out),
            (found.other, found.other_left_out),
        )
        if rows
    ]
    if found.unlike:
        left_out.append(f"The evaluations differ in {', '.join(found.unlike)}.")
    title = f"{found.other} against {found.first}, by item"
    return Table(_head(found), rows, title, " ".join(left_out))


def _by_sid(found: Comparison) -> Table:
    rows = [_cells(entry.metric, found.rows, entry) for entry in _by(found, "SID")]
    return Table(_head(found), rows, "The same by SID", folded=True)


def _by(found: Comparison, level: str) -> list[Difference]:
    return [entry for entry in found.differences if entry.level == level]


def _head(found: Comparison) -> list[str]:
    return ["", "rows", found.first, found.other, "difference", "95%", "significant"]


def _cells(name: str, rows: int, entry: Difference) -> list[str]:
    return [
        name,
        f"{rows:,}",
        f"{entry.first:.4f}",
        f"{entry.other:.4f}",
        f"{entry.difference:+.4f}",
        f"{entry.low:+.4f} to {entry.high:+.4f}",
        "yes" if entry.real else "no",
    ]
