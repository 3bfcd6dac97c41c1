"""Evaluated runs of several seeds, compared on the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from sidtune.evaluation.compare import interval_of

METRICS = ("HR@10", "NDCG@10", "HR@50")


def run_folder(folder: Path, name: str, seed: int) -> Path:
    """Where a run is."""
    return folder / "runs" / f"{name.replace(',', '').replace(' ', '-')}-{seed}"


def figures(run: Path, split: str) -> dict[str, float]:
    """The metrics of a run's evaluation by item; none where it is not done."""
    file = run / "evaluation" / f"{split}.json"
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))["rankers"]["model"]["item"]
    return {metric: found[metric]["value"] for metric in METRICS}


def gains(run: Path, split: str) -> NDArray[np.float64]:
    """What each row adds to each metric, `(rows, metrics)`."""
    file = run / "evaluation" / f"{split}.predictions.parquet"
    table = pyarrow.parquet.read_table(file, columns=["row", "item_rank"]).sort_by("row")
    rank = table["item_rank"].to_numpy().astype(float)
    # Ranks are counted from 1; a target that is not in the list has 0.
    rank = np.where(rank > 0, rank, np.inf)
    columns = [rank <= 10, np.where(rank <= 10, 1 / np.log2(1 + rank), 0), rank <= 50]
    return np.stack(columns, axis=1).astype(float)


def differences(
    own: Sequence[Path], theirs: Sequence[Path], split: str
) -> dict[str, dict[str, float]]:
    """The first runs less the second, seed by seed: the mean and a 95% interval by metric.

    The bootstrap draws rows; a row's gain is the mean over seeds, so seeds count as fixed.
    """
    first, second = (np.mean([gains(run, split) for run in runs], axis=0) for runs in (own, theirs))
    found = {}
    for metric, apart in zip(METRICS, (first - second).T, strict=True):
        low, high = interval_of(apart)
        found[metric] = {"value": float(apart.mean()), "low": low, "high": high}
    return found


def shown(cell: dict[str, float] | None) -> str:
    """A difference and its interval."""
    return f"{cell['value']:+.4f} ({cell['low']:+.4f}, {cell['high']:+.4f})" if cell else "–"


def compared(folder: Path, rows: Mapping[str, Sequence[str]], split: str) -> list[dict[str, Any]]:
    """The rows that have evaluated runs, printed and returned: settings, figures by seed, their
    mean, and the gain over the first row on the seeds that both have.

    Args:
        folder: where the runs are, by name of the row and seed.
        rows: overrides of the configuration, by name.
    """
    found: list[dict[str, Any]] = []
    first = next(iter(rows))
    for name, settings in rows.items():
        runs = {seed: run_folder(folder, name, seed) for seed in range(1, 100)}
        seeds = {seed: got for seed in runs if (got := figures(runs[seed], split))}
        if not seeds:
            continue
        means = {metric: mean(got[metric] for got in seeds.values()) for metric in METRICS}
        row: dict[str, Any] = {"row": name, "settings": settings, "seeds": seeds, "mean": means}
        both = [seed for seed in seeds if figures(run_folder(folder, first, seed), split)]
        if name != first and both:
            own, theirs = (
                [run_folder(folder, which, seed) for seed in both] for which in (name, first)
            )
            row["gain"] = differences(own, theirs, split)
        found.append(row)
        cells = (
            f"{means[metric]:>10.4f}{shown(row.get('gain', {}).get(metric)):>26}"
            for metric in METRICS
        )
        print(f"{name:<32}{len(seeds):>3}" + "".join(cells), flush=True)
    return found
