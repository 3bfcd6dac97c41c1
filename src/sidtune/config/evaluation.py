"""`eval`: validation frequency and size, and how the best model is selected."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from sidtune.config.search import Normalize
from sidtune.config.section import Positive, Section, Share

# The K of the metrics that can select the best model.
METRIC_DEPTH = 10


class RankingConfig(Section):
    """Ranking metrics during training: how often, on how many validation rows, and the search
    settings.
    """

    every: Positive | None = None
    sample: Positive = 500
    beams: Positive = 20
    normalize: Normalize = "full"


class EvalConfig(Section):
    """Validation frequency (each validation saves a checkpoint) and size, model selection and early
    stopping.
    """

    task: str | None = None
    every: Positive | Share = 0.05
    max_rows: Positive = 5000
    task_rows: Positive = 200
    ranking: RankingConfig = RankingConfig()
    metric: Literal["loss", "ndcg@10", "hr@10"] = "loss"
    patience: Positive | None = 3
    save_total_limit: Positive = 1

    @model_validator(mode="after")
    def _metric_is_computed(self) -> Self:
        if self.metric == "loss":
            return self
        if self.ranking.every != 1:
            raise ValueError(
                f"metric {self.metric} must be computed at every evaluation: set"
                " eval.ranking.every: 1"
            )
        if self.ranking.beams < METRIC_DEPTH:
            raise ValueError(
                f"metric {self.metric} needs eval.ranking.beams of at least {METRIC_DEPTH}"
            )
        return self
