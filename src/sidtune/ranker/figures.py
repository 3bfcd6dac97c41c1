"""What fitting a ranker found, on validation rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sidtune.config.rank import SourceName
from sidtune.metrics.metrics import Estimate


@dataclass(frozen=True)
class Line:
    """One ranker's figures on validation rows.

    Args:
        hr, ndcg, far: HR@10, NDCG@10 and HR@50.
        change: what the ranker has more than this one, of HR@10, with the paired bootstrap's 95%
            interval; None for the ranker itself.
    """

    hr: Estimate
    ndcg: Estimate
    far: Estimate
    change: Estimate | None


@dataclass(frozen=True)
class Ranked:
    """What fitting a ranker found.

    Args:
        rows: validation rows it was fitted on.
        lines: by name, as `Fitted.ranks`.
        importance: each feature's share in the trees' gain, highest first; empty without trees.
        weights: of the sources in their weighted mean.
        mixture: weight of that mean beside the trees; None without trees.
        absent: sources that have nothing to say here.
        options: what was asked for, as `RankConfig.fitting`.
    """

    rows: int
    lines: dict[str, Line]
    importance: dict[str, float]
    weights: dict[SourceName, float]
    mixture: float | None
    absent: tuple[SourceName, ...]
    options: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)
