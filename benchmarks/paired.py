"""Evaluated runs of several seeds, compared on the same rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

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
