"""What a run's folder holds beside its model: names of files, the plan of its training, and lines
of JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

Count = Annotated[int, Field(ge=0, lt=2**62)]
# The resolved configuration, log entries and the plan.
CONFIG, METRICS, PLAN = "config.yaml", "metrics.jsonl", "plan.json"
# The folder of evaluations, the ranker's figures and the report.
EVALUATION, RANKED, REPORT = "evaluation", "ranker.json", "report.html"


def beside(run: Path, what: str) -> Path:
    """The folder beside a run's that its name and a word name."""
    # `.` and `..` stand for folders with other names.
    run = run.resolve() if run.name in ("", "..") else run
    return run.with_name(f"{run.name}-{what}")


@dataclass(frozen=True)
class TaskPlan:
    """A task of the mixture, as encoded; lengths in tokens.

    Args:
        truncated: examples that lost history items to fit `cutoff_len`.
        dropped: examples that did not fit even then.
        by_length: number of examples between neighbouring `length_edges` of the plan.
    """

    weight: float
    examples: Count
    tokens: Count
    labels: Count
    longest: Count
    truncated: Count
    dropped: Count
    by_length: list[Count]


@dataclass(frozen=True)
class TrainingPlan:
    """What training was going to do when it began, for reports.

    Args:
        model: type of the model, as Transformers names it.
        length_edges: of the bins that examples are counted in by length.
    """

    model: str
    parameters: Count
    trained_parameters: Count
    device: str
    processes: Count
    precision: str
    steps: Count
    steps_per_epoch: Count
    length_edges: list[Count]
    tasks: dict[str, TaskPlan]


def json_line(entry: Mapping[str, Any]) -> str:
    """An object as a line of a file; NaN and infinities as text, since JSON does not have them."""
    told = {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in entry.items()
    }
    return json.dumps(told) + "\n"
