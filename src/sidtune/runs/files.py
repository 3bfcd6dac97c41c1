"""Names of the files of a run's folder that stand beside its model."""

from __future__ import annotations

# The resolved configuration, log entries, the plan and the ranker's figures as a report shows them,
# and the report.
CONFIG, METRICS, PLAN, RANKED, REPORT = (
    "config.yaml",
    "metrics.jsonl",
    "plan.json",
    "ranker.json",
    "report.html",
)
