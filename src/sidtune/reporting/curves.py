"""How training went: losses, rewards, learning rate, throughput and memory by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sidtune.reporting.charts import lines
from sidtune.reporting.page import Block, Chart, Section
from sidtune.reporting.record import Record

# Of a line, of a chart, and of a line where many share a chart.
MOST_POINTS, MOST_OF_CHART, FEWEST_POINTS = 300, 1500, 60
# Lines of fewer points show them.
FEW_POINTS = 12
STEP = "step"


class Curve(NamedTuple):
    """A figure of `metrics.jsonl` that has a chart of its own."""

    key: str
    title: str
    unit: str


FIGURES = (
    Curve("eval_hr@10", "HR@10 while training, validation sample", "HR@10"),
    Curve("eval_ndcg@10", "NDCG@10 while training, validation sample", "NDCG@10"),
    Curve("eval_hr@50", "HR@50 while training, validation sample", "HR@50"),
    Curve("reward", "Mean reward of the answers", "reward"),
    Curve("hit_groups", "Groups of answers that hold the target", "share"),
    Curve("taught_groups", "Groups of answers with a gradient", "share"),
    Curve("kl", "Divergence from the start", "nats per token"),
    Curve("entropy", "Entropy of the first SID token", "nats"),
    Curve("tokens_saved", "Tokens saved by shared prefixes", "share"),
    Curve("learning_rate", "Learning rate", "learning rate"),
    Curve("tokens_per_second", "Throughput", "tokens per second"),
    Curve("useful_tokens", "Tokens that are not padding", "share"),
    Curve("waiting", "Time spent waiting for data", "share"),
    Curve("memory_gib", "Peak memory", "GiB"),
    Curve("grad_norm", "Gradient norm before clipping", "norm"),
)


def training(records: Sequence[Record]) -> Section | None:
    """The curves of one run, by task, or those of several over each other."""
    if not any(record.entries for record in records):
        return None
    blocks: list[Block] = []
    if len(records) == 1:
        (record,) = records
        trained, valid = _tasks(record, ""), _tasks(record, "eval_")
        blocks += _chart([record], trained, "Training loss by task", "nats per label")
        blocks += _chart([record], valid, "Validation loss by task", "nats per label")
    else:
        # The loss of reinforcement is of another kind.
        if not any(record.series("reward") for record in records):
            blocks += _chart(records, {"loss": "loss"}, "Training loss", "nats per label")
        for task in dict.fromkeys(name for record in records for name in _tasks(record, "eval_")):
            name = task.removeprefix("eval_").removesuffix("_loss")
            blocks += _chart(records, {task: name}, f"Validation loss, {name}", "nats per label")
    for curve in FIGURES:
        blocks += _chart(records, {curve.key: curve.unit}, curve.title, curve.unit, zero=True)
    longest = max(len(record.entries) for record in records)
    intro = (
        "A line of many points is drawn through means of neighbouring ones."
        if longest > MOST_POINTS
        else ""
    )
    return Section("training", "Training", intro, blocks)


def _tasks(record: Record, prefix: str) -> dict[str, str]:
    """Losses by log name: of all tasks together, where there are several, and of each."""
    known = {name for plan in record.plans for name in plan.tasks}
    names = [
        name
        for name in dict.fromkeys(name for entry in record.entries for name in entry)
        if name.startswith(prefix) and name.endswith("_loss") and name != "train_loss"
    ]
    found = {name: name.removeprefix(prefix).removesuffix("_loss") for name in names}
    found = {
        name: task
        for name, task in found.items()
        if (task in known if known else True) and (prefix or not name.startswith("eval_"))
    }
    return {"loss": "all tasks", **found} if not prefix and len(found) > 1 else found


def _chart(
    records: Sequence[Record],
    keys: Mapping[str, str],
    title: str,
    unit: str,
    zero: bool = False,
) -> list[Block]:
    """One chart of these figures, or none where no run has them."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for key, label in keys.items():
            if points := record.series(key):
                found[label if len(records) == 1 else record.name] = points
    if not found:
        return []
    most = max(FEWEST_POINTS, min(MOST_POINTS, MOST_OF_CHART // len(found)))
    rows = [
        {"x": x, "y": y, "name": name}
        for name, points in found.items()
        for x, y in thinned(points, most)
    ]
    few = len(rows) <= FEW_POINTS * len(found)
    return [Chart(title, lines(rows, list(found), (STEP, unit), points=few, zero=zero))]


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most so many points, each the mean of its neighbours in step and value, to six digits."""
    parts = np.array_split(np.array(points, np.float64), min(most, len(points)))
    return [(float(f"{x:.6g}"), float(f"{y:.6g}")) for x, y in (part.mean(0) for part in parts)]
