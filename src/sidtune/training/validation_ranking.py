"""HR@K and NDCG@K of a fixed sample of validation rows, while training."""

from __future__ import annotations

import math
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerState

from sidtune.config.evaluation import METRIC_DEPTH, RankingConfig
from sidtune.config.search import RankOptions
from sidtune.data.rows import Rows, drawn
from sidtune.decoding.answers import make_answers
from sidtune.decoding.decoder import Decoder, make_decoder
from sidtune.decoding.lists import rank_histories
from sidtune.decoding.prompts import Prompts
from sidtune.metrics.metrics import gains, hits, summarise
from sidtune.metrics.repeats import hardly_any, repeating
from sidtune.model.attention import Precision
from sidtune.runs.best import ERROR
from sidtune.runs.bundle import Bundle

CHOOSING = {"eval_hr@10": hits, "eval_ndcg@10": gains}


class ValidationRanking:
    """Ranks items for a sample of validation rows; items that share a SID take consecutive ranks.

    Args:
        bundle: the one saved with the model, so that prompts equal those at inference.
        rows: the validation rows the sample is drawn from.
        seed: draws the sample.
    """

    def __init__(
        self,
        bundle: Bundle,
        tokenizer: PreTrainedTokenizerFast,
        rows: Rows,
        config: RankingConfig,
        seed: int,
    ) -> None:
        assert config.every is not None
        exclude = config.exclude_history
        if exclude == "auto":
            exclude = hardly_any(repeating(rows))
        self.every = config.every
        self.options = RankOptions(config.beams, config.normalize, exclude)
        self.rows = rows.take(drawn(len(rows.target), config.sample, seed))
        self.prompts = Prompts(bundle, tokenizer)
        self.answers = make_answers(bundle, self.prompts)
        self.decoder: Decoder[Any] | None = None

    def due(self, state: TrainerState) -> bool:
        """Whether this evaluation computes ranking metrics: every n-th does, and those before the
        first step and after the last.
        """
        return (
            state.global_step >= state.max_steps
            or state.global_step // state.eval_steps % self.every == 0
        )

    def measure(
        self, model: PreTrainedModel, precision: Precision, *, errors: bool
    ) -> dict[str, float]:
        """The metrics by log name, such as `eval_ndcg@10`; identical on every rank.

        Args:
            model: the same at every call, in evaluation mode.
            errors: also the standard errors of those that can choose the model.
        """
        self.decoder = self.decoder or make_decoder(model, precision)
        # Training already shows a progress bar, and a terminal shows only one at a time.
        lists = rank_histories(
            self.decoder,
            self.prompts,
            self.answers,
            self.rows.history,
            self.options,
            together=True,
            bar=False,
        )
        hidden = self.rows.history if self.options.exclude_history else None
        ranking = self.answers.rank(lists.sids, self.rows.target, hidden)
        estimates = summarise(ranking.item_ranks, self.options.width)
        found = {f"eval_{name.lower()}": estimate.value for name, estimate in estimates.items()}
        for name, per_row in CHOOSING.items():
            if errors and name in found:
                values = per_row(ranking.item_ranks, METRIC_DEPTH)
                found[name + ERROR] = float(values.std() / math.sqrt(len(values)))
        return found
