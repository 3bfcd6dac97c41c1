"""Paired bootstrap over the shared rows: which differences between evaluated runs are statistically
significant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from sidtune.base.errors import UserError
from sidtune.config.section import MOST
from sidtune.evaluation.reach import REACH_NAMES
from sidtune.files.parquet import read_parquet
from sidtune.files.text import read_json_object
from sidtune.metrics.metrics import metric_names, per_row

KEYS = pa.schema([("row", pa.int64()), ("user_id", pa.string()), ("target", pa.string())])
RANKS = pa.schema([("sid_rank", pa.int64()), ("item_rank", pa.int64())])
LEVELS = {"SID": "sid_rank", "item": "item_rank"}
# What lists depend on besides the model and its rows.
SETTINGS = (
    *("beams", "normalize", "exclude_history", "both_directions"),
    *("candidates_sha256", "history", "sids_sha256"),
)
# Whether lists are those of a ranker, not of a model or baseline alone.
RANKER = "ranker"
REACH, REACH_METRICS = "reach", ("HR@10", "NDCG@10")
METRICS = ("HR@1", "HR@5", "HR@10", "HR@50", "NDCG@5", "NDCG@10", "MRR")
RESAMPLES = 10_000
SEED = 0
INTERVAL = (0.025, 0.975)
# How many counts are held at once: 32 MB of int64.
CHUNK_COUNTS = 4_000_000


@dataclass(frozen=True)
class Evaluated:
    """Predictions of one run.

    Args:
        name: how the user calls the run.
        table: the columns of `KEYS` and `RANKS`, a row of the data each; a rank of 0 is a miss.
        depth: length of the lists that the ranks are places in.
        settings: what else the lists depend on besides the model, as in the JSON file.
    """

    name: str
    table: pa.Table
    depth: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One metric of two runs, other minus first, with the bootstrap's 95% interval.

    `real`: statistically significant, that is, the interval excludes zero.
    """

    level: str
    metric: str
    first: float
    other: float
    difference: float
    low: float
    high: float
    real: bool


@dataclass(frozen=True)
class Group:
    """Differences by item of some of the rows: those whose target is reached in this way."""

    reach: str
    rows: int
    differences: list[Difference]


@dataclass(frozen=True)
class Comparison:
    """Two runs on the `rows` that all compared runs share, in lists cut to `depth`, and how many
    rows each has more.

    `unlike` names settings in which the two evaluations differ, so that more than the models is
    compared. `by_reach` is empty where the first evaluation read no training rows.
    """

    first: str
    other: str
    depth: int
    rows: int
    first_left_out: int
    other_left_out: int
    unlike: list[str]
    differences: list[Difference]
    by_reach: list[Group]


def read_evaluated(run: Path, split: str) -> Evaluated:
    """Read what `sidtune evaluate` wrote into a run's folder, or into one of its own (`--output`).

    Raises:
        UserError: for a run without this evaluation, and for files of another shape.
    """
    if not run.is_dir():
        raise UserError(
            f"no such folder: {run}",
            "Give a run's folder, or the --output folder of its evaluation.",
        )
    for folder in (run / "evaluation", run):
        table_path, summary_path = (
            folder / f"{split}.{kind}" for kind in ("predictions.parquet", "json")
        )
        if table_path.exists() and summary_path.exists():
            settings = read_settings(summary_path)
            # An option that is off is as one that there is not, as for baselines.
            told = {name: settings.get(name) or None for name in SETTINGS}
            told[RANKER] = "ranker_sha256" in settings
            return Evaluated(
                str(run), _read_table(table_path, settings["beams"]), settings["beams"], told
            )
    raise UserError(
        f"{run} has no evaluation of {split}", f"Run: sidtune evaluate {run} --split {split}"
    )


def compare(
    first: Evaluated, others: Sequence[Evaluated], resamples: int = RESAMPLES
) -> list[Comparison]:
    """Compare each of the others with the first, all on the same rows.

    The interval is the percentile interval of the bootstrap (Efron, 1979): in each of `resamples`,
    rows are drawn with replacement, each with its values of both runs.

    Raises:
        UserError: where there is no row that all runs share.
    """
    runs = [first, *others]
    tables = _shared([run.table for run in runs])
    if not tables[0].num_rows:
        raise UserError(
            f"{', '.join(run.name for run in runs)} share no rows with equal row, user and target",
            "Evaluate them on the same rows.",
        )
    depth = min(run.depth for run in runs)
    measures = list(product(LEVELS, (name for name in METRICS if name in metric_names(depth))))
    values = [_values(table, measures, depth) for table in tables]
    left_out = [run.table.num_rows - tables[0].num_rows for run in runs]
    groups = [_by_reach(tables[0], table, depth, resamples) for table in tables[1:]]
    return [
        Comparison(
            first.name,
            run.name,
            depth,
            len(own),
            left_out[0],
            left,
            _unlike(first.settings, run.settings),
            _differences(measures, values[0], own, resamples),
            reached,
        )
        for run, own, left, reached in zip(others, values[1:], left_out[1:], groups, strict=True)
    ]


def render(comparison: Comparison) -> Iterator[RenderableType]:
    """Rich renderables: the compared rows, and a table line per level and metric."""
    yield from _notes(comparison)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("level")
    table.add_column("metric")
    for title in (comparison.first, comparison.other, "second − first", "95% interval"):
        table.add_column(escape(title), justify="right")
    table.add_column("significant")
    for entry in comparison.differences:
        table.add_row(
            entry.level,
            entry.metric,
            f"{entry.first:.4f}",
            f"{entry.other:.4f}",
            f"{entry.difference:+.4f}",
            f"{entry.low:+.4f} to {entry.high:+.4f}",
            "yes" if entry.real else "no",
        )
    yield table
    if comparison.by_reach:
        yield _reach_table(comparison)


def _reach_table(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("target, by item")
    for title in ("rows", "metric", comparison.first, comparison.other, "second − first"):
        table.add_column(escape(title), justify="right")
    table.add_column("95% interval", justify="right")
    for group in comparison.by_reach:
        for entry in group.differences:
            table.add_row(
                group.reach,
                f"{group.rows:,}",
                entry.metric,
                f"{entry.first:.4f}",
                f"{entry.other:.4f}",
                f"{entry.difference:+.4f}",
                f"{entry.low:+.4f} to {entry.high:+.4f}",
            )
    return table


def as_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The same as plain JSON values."""
    return [asdict(comparison) for comparison in comparisons]


def _unlike(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Settings in which two evaluations differ; a ranker that scores whole items has no
    probabilities of tokens.
    """
    names = [
        name
        for name in (*SETTINGS, RANKER)
        if name != "normalize" or (first.get(name) and other.get(name))
    ]
    return [name for name in names if first.get(name) != other.get(name)]


def _notes(comparison: Comparison) -> Iterator[str]:
    yield f"{comparison.rows:,} rows, lists of {comparison.depth}"
    for name, rows in (
        (comparison.first, comparison.first_left_out),
        (comparison.other, comparison.other_left_out),
    ):
        if rows:
            yield f"{escape(name)}: {rows:,} rows ignored that other runs lack"
    if comparison.unlike:
        yield f"[yellow]the evaluations differ in {', '.join(comparison.unlike)}[/yellow]"


def _read_table(path: Path, beams: int) -> pa.Table:
    table = read_parquet(path, "Evaluate the run again.")
    for wanted in (*KEYS, *RANKS):
        if table.column_names.count(wanted.name) != 1:
            raise UserError(
                f"{path} has no column {wanted.name}, or several", "Evaluate the run again."
            )
        column = table[wanted.name]
        if column.type != wanted.type or column.null_count:
            found = f"{column.type} with {column.null_count:,} nulls"
            raise UserError(
                f"{path}, column {wanted.name}: expected {wanted.type}, found {found}",
                "Evaluate the run again.",
            )
    if pc.count_distinct(table["row"]).as_py() < table.num_rows:
        raise UserError(f"{path}, column row: duplicate numbers", "Evaluate the run again.")
    for name in RANKS.names if table.num_rows else ():
        least, most = pc.min_max(table[name]).as_py().values()
        if least < 0 or most > beams:
            found = "below 0" if least < 0 else f"{most}, beyond the length of lists of {beams}"
            raise UserError(f"{path}, column {name}: a rank is {found}", "Evaluate the run again.")
    reach = [REACH] if REACH in table.column_names else []
    return table.select([*KEYS.names, *RANKS.names, *reach])


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of an evaluation's JSON file.

    Raises:
        UserError: for a file of another shape.
    """
    settings = read_json_object(path).get("settings")
    beams = settings.get("beams") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or type(beams) is not int or not 1 <= beams <= MOST:
        expected = f"expected a number from 1 to {MOST:,}, found {beams!r:.80}"
        raise UserError(f"{path}: settings.beams: {expected}", "Evaluate the run again.")
    return settings


def _shared(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The rows that all tables have, in the same order in each."""
    keys = tables[0].select(KEYS.names)
    for table in tables[1:]:
        keys = keys.join(table.select(KEYS.names), KEYS.names, join_type="inner")
    return [keys.join(table, KEYS.names, join_type="inner").sort_by("row") for table in tables]


def _by_reach(first: pa.Table, other: pa.Table, depth: int, resamples: int) -> list[Group]:
    """Differences of the rows of each way to reach a target, as the first evaluation names it."""
    if REACH not in first.column_names:
        return []
    known = metric_names(depth)
    measures = [("item", name) for name in REACH_METRICS if name in known]
    before, after = (_values(table, measures, depth) for table in (first, other))
    ways = first[REACH].to_numpy(zero_copy_only=False)
    groups = []
    for name in REACH_NAMES:
        own = ways == name
        if own.any():
            found = _differences(measures, before[own], after[own], resamples)
            groups.append(Group(name, int(own.sum()), found))
    return groups


def _values(
    table: pa.Table, measures: Sequence[tuple[str, str]], depth: int
) -> NDArray[np.float64]:
    """Each row's value of each level and metric, `(rows, measures)`."""
    ranks = {level: table[column].to_numpy() for level, column in LEVELS.items()}
    return np.stack([per_row(ranks[level], metric, depth) for level, metric in measures], axis=1)


def interval_of(
    differences: NDArray[np.float64], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Ends of the 95% interval of a mean of paired differences, `(rows,)`.

    How often a resample draws each distinct value is all that its mean depends on. These counts
    have a multinomial distribution, which is drawn from: values are few where rows are many.
    """
    rows = len(differences)
    values, counts = np.unique(differences, return_counts=True)
    random = np.random.default_rng(SEED)
    size = max(1, CHUNK_COUNTS // len(values))
    means = [
        random.multinomial(rows, counts / rows, min(size, resamples - start)) @ values / rows
        for start in range(0, resamples, size)
    ]
    # An end that is zero but for rounding must not pass for a real difference.
    low, high = np.quantile(np.concatenate(means), INTERVAL).round(12).tolist()
    return low, high


def _differences(
    measures: Sequence[tuple[str, str]],
    first: NDArray[np.float64],
    other: NDArray[np.float64],
    resamples: int,
) -> list[Difference]:
    """Of the rows' values in two runs, `(rows, measures)` each."""
    columns = zip(
        measures,
        first.mean(axis=0).tolist(),
        other.mean(axis=0).tolist(),
        (interval_of(column, resamples) for column in (other - first).T),
        strict=True,
    )
    return [
        Difference(level, metric, before, after, after - before, low, high, low > 0 or high < 0)
        for (level, metric), before, after, (low, high) in columns
    ]
