"""What a run's folder holds beside its model: names of files, and the plan of its training."""

from __future__ import annotations

from dataclasses import dataclass

# The resolved configuration, log entries, the plan, the ranker's figures, and the report.
CONFIG, METRICS, PLAN, RANKED, REPORT = (
    "config.yaml",
    "metrics.jsonl",
    "plan.json",
    "ranker.json",
    "report.html",
)


@dataclass(frozen=True)
class TaskPlan:
    """A task of the mixture, as encoded; lengths in tokens.

    Args:
        truncated: examples that lost history items to fit `cutoff_len`.
        dropped: examples that did not fit even then.
        by_length: number of examples between neighbouring `length_edges` of the plan.
    """

    weight: float
    examples: int
    tokens: int
    labels: int
    longest: int
    truncated: int
    dropped: int
    by_length: list[int]


@dataclass(frozen=True)
class Plan:
    """What training was going to do when it began, for reports.

    Args:
        model: type of the model, as Transformers names it.
        length_edges: of the bins that examples are counted in by length.
    """

    model: str
    parameters: int
    trained_parameters: int
    device: str
    processes: int
    precision: str
    steps: int
    steps_per_epoch: int
    length_edges: list[int]
    tasks: dict[str, TaskPlan]
