"""HR@K and NDCG@K of a fixed sample of validation rows, while training."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerState

from sidtune.config.evaluation import RankingConfig
from sidtune.config.search import RankOptions
from sidtune.data.rows import Rows, drawn
from sidtune.decoding.answers import make_answers
from sidtune.decoding.decoder import Decoder, Precision, make_decoder
from sidtune.decoding.lists import rank_histories
from sidtune.decoding.prompts import Prompts
from sidtune.metrics.metrics import summarise
from sidtune.runs.bundle import Bundle


class ValidationRanking:
    """Recommends to some validation users and looks where their targets stand, items of one SID one
    after the other.

    Args:
        bundle: as the trained model will carry it, so that it is asked now as it will be then.
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
        self.every, self.options = config.every, RankOptions(config.beams, config.normalize)
        self.rows = rows.take(drawn(len(rows.target), config.sample, seed))
        self.prompts = Prompts(bundle, tokenizer)
        self.answers = make_answers(bundle, self.prompts)
        self.decoder: Decoder[Any] | None = None

    def due(self, state: TrainerState) -> bool:
        """Whether this evaluation ranks: every n-th does, the one before the first step and the
        last one too.
        """
        return (
            state.global_step >= state.max_steps
            or state.global_step // state.eval_steps % self.every == 0
        )

    def measure(self, model: PreTrainedModel, precision: Precision) -> dict[str, float]:
        """The metrics by the names they are logged under, such as `eval_ndcg@10`; the same in every
        process.

        Args:
            model: the same at every call, in evaluation mode.
        """
        self.decoder = self.decoder or make_decoder(model, precision)
        # Training draws a bar of its own, and a terminal has one at a time.
        lists = rank_histories(
            self.decoder,
            self.prompts,
            self.answers,
            self.rows.history,
            self.options,
            together=True,
            bar=False,
        )
        ranking = self.answers.rank(lists.sids, self.rows.target)
        estimates = summarise(ranking.item_ranks, self.options.beams)
        return {f"eval_{name.lower()}": estimate.value for name, estimate in estimates.items()}
