"""`eval`: validation frequency and size, and how the best model is selected."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sidtune.config.search import Normalize
from sidtune.config.section import Positive, Section, Share

# The K of the metrics that can select the best model.
METRIC_DEPTH = 10


class RankingConfig(Section):
    """Ranking metrics during training: how often, on how many validation rows, and the search
    settings.
    """

    every: Positive | None = Field(
        default=None,
        description=(
            "rank a sample of validation rows at every n-th evaluation (and at the"
            " last): HR@K and NDCG@K by item; null never ranks"
        ),
    )
    sample: Positive = Field(
        default=500,
        description=(
            "validation rows that are ranked, drawn by seed, the same each time; at an"
            " HR@10 of 0.12 the interval is ±0.03 with 500 rows and ±0.01 with 4,000"
        ),
    )
    beams: Positive = Field(default=20, description="beam width of that search; K is at most this")
    normalize: Normalize = Field(
        default="full",
        description=(
            "probabilities of that search, as in `evaluate`: over the `full`"
            " vocabulary, or `trie`, over the tokens that lead to an item"
        ),
    )
    exclude_history: Literal["auto"] | bool = Field(
        default="auto",
        description=(
            "leave items of the history out of those lists. `auto`: only if hardly any"
            " validation row's target is in its history (by the 95% interval fewer than 1%)"
        ),
    )


class EvalConfig(Section):
    """Validation frequency (each validation saves a checkpoint) and size, model selection and early
    stopping.
    """

    task: str | None = Field(
        default=None,
        description=(
            "the evaluation task: its prompts are used by validation, the choice of the best"
            " model, `evaluate` and `recommend`. `sid_next` or `sid_sequence`; null: `sid_next`,"
            " unless the mixture has `sid_sequence` and not `sid_next`"
        ),
    )
    every: Positive | Share = Field(
        default=0.05,
        description=(
            "steps between evaluations, or a share of the run when below 1; a"
            " checkpoint follows each evaluation"
        ),
    )
    max_rows: Positive = Field(default=5000, description="validation rows of `eval.task`")
    task_rows: Positive = Field(default=200, description="validation rows of every other task")
    ranking: RankingConfig = RankingConfig()
    metric: Literal["loss", "ndcg@10", "hr@10"] = Field(
        default="loss",
        description=(
            "what chooses the best model and controls early stopping: `loss` (of"
            " `eval.task`), `ndcg@10` or `hr@10`; the latter two need"
            " `eval.ranking.every: 1`. Rankings within half a standard error of the highest count"
            " as equal, and the last of them is kept"
        ),
    )
    patience: Positive | None = Field(
        default=3,
        description=(
            "stop after this many evaluations without a better `eval.metric`; null"
            " never stops early"
        ),
    )
    save_total_limit: Positive = Field(
        default=1, description="newest checkpoints to keep, besides the best"
    )

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
