"""The Trainer of reinforcement: a step is the model's own answers to the step's prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sidtune.batching.layouts import MicroBatch, idle_micro_batch
from sidtune.batching.steps import Step
from sidtune.config.rl import RlConfig
from sidtune.decoding.decoder import Decoder, make_decoder
from sidtune.reinforcement.grpo import teaches, wanted
from sidtune.reinforcement.policy_loss import REFERENCE, PolicyLoss
from sidtune.reinforcement.prompt_corpus import PromptCorpus
from sidtune.reinforcement.rollouts import Rollout, Rollouts
from sidtune.reinforcement.trees import edges_of
from sidtune.training.guards.watch import LossWatch
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.trainer import StepTrainer


@dataclass
class Counts:
    """Sums since the last log entry."""

    prompts: float = 0
    answers: float = 0
    reward: float = 0
    hit: float = 0
    taught: float = 0
    entropy: float = 0
    tokens: float = 0
    padded: float = 0

    def logged(self) -> dict[str, float]:
        """The means that are logged."""
        return {
            "reward": self.reward / max(1, self.answers),
            "hit_groups": self.hit / max(1, self.prompts),
            "taught_groups": self.taught / max(1, self.prompts),
            "entropy": self.entropy / max(1, self.prompts),
            "tokens_saved": 1 - self.tokens / max(1, self.padded),
        }


@dataclass(frozen=True)
class Reinforcement:
    """What reinforcement needs besides what supervised training does.

    Args:
        rollouts: asks for answers.
        options: of the objective.
        reference: the model that the divergence is measured from; None without `beta`.
    """

    rollouts: Rollouts
    options: RlConfig
    reference: LabelLoss | None


class ReinforcementTrainer(StepTrainer):
    """As `StepTrainer`, with micro-batches that hold the current model's answers.

    The plan names the prompts of a step. The loss is the mean over the step's prompts of all
    processes, so their number is known without communication, and a group that teaches nothing is
    counted without being computed.

    Args:
        reinforcement: what is asked, rewarded and compared with.
    """

    def __init__(self, *args: Any, reinforcement: Reinforcement, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The loss of reinforcement says nothing about how well it goes.
        self.remove_callback(LossWatch)
        self.reinforcement, self.counts = reinforcement, Counts()
        if reinforcement.reference:
            reinforcement.reference.to(self.args.device).eval()
        self.decoder: Decoder[Any] | None = None

    def training_step(  # type: ignore[override]
        self, model: nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> Tensor:
        """Ask for the answers of the step, and learn from them."""
        self.language_model.eval()
        number = self.state.global_step
        self.decoder = self.decoder or make_decoder(self.language_model, self.accelerator.autocast)
        rollout = self.reinforcement.rollouts.of(self.decoder, self.steps.share(number))
        return super().training_step(model, self._step(rollout, number, inputs["examples"]))

    def _step(self, rollout: Rollout, number: int, prompts: int) -> Step:
        """The answers laid out, with the reference's log-probabilities."""
        options, corpus = self.reinforcement.options, self.steps.corpus
        assert isinstance(corpus, PromptCorpus)
        asked = wanted(
            rollout.groups, rollout.rewards, corpus.paths, options.beta, options.sft_weight
        )
        edges = edges_of(rollout.prompts, rollout.tasks, asked, corpus.paths)
        layout = self.steps.layout
        batches = edges.micro_batches(
            replace(layout, prefixes=None), looks_at_prefixes=layout.prefixes is not None
        )
        self._watch(rollout, batches)
        if not batches:
            batches = [idle_micro_batch(corpus[int(self.steps.plan.step(number)[0])], layout)]
        elif self.reinforcement.reference:
            batches = [self._compared(batch) for batch in batches]
        return Step(micro_batches=batches, label_count=prompts, examples=prompts)

    def _compared(self, batch: MicroBatch) -> MicroBatch:
        """The micro-batch with the log-probabilities of its labels under the reference."""
        assert self.reinforcement.reference
        assert batch.terms is not None
        with self.accelerator.autocast():
            known = self.reinforcement.reference.likelihoods(**batch.to(self.args.device))  # type: ignore[arg-type]
        terms = batch.terms.copy()
        terms[:, REFERENCE] = known.float().cpu().numpy()
        return replace(batch, terms=terms)

    def _watch(self, rollout: Rollout, batches: list[MicroBatch]) -> None:
        groups, counts = rollout.groups, self.counts
        taught = teaches(rollout.rewards, groups.there)
        counts.prompts += len(taught)
        counts.answers += groups.there.sum()
        counts.reward += rollout.rewards.sum()
        counts.hit += groups.hits.any(axis=1).sum()
        counts.taught += taught.sum()
        counts.entropy += rollout.entropy.sum()
        counts.tokens += sum(batch.tokens for batch in batches)
        counts.padded += self._plain_tokens(rollout)

    def _plain_tokens(self, rollout: Rollout) -> int:
        """Tokens of all answers, each behind a prompt of its own."""
        lengths = np.array([len(prompt) for prompt in rollout.prompts])
        there, paths = rollout.groups.there, self.reinforcement.rollouts.corpus.paths
        answers: NDArray[np.int64] = np.where(there, paths.lengths[rollout.groups.sids], 0)
        return int((lengths * there.sum(axis=1)).sum() + answers.sum())

    def _count(self, step: Step, sums: Tensor) -> None:
        """Only prompts: a loss per task and label would say nothing."""
        self._examples += step["examples"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to training entries what was answered and how it was rewarded."""
        if "loss" in logs:
            told = torch.tensor(list(vars(self.counts).values()), dtype=torch.float64)
            logs.update(Counts(*self._summed(told).tolist()).logged())
            variant = self.loss_module.variant
            assert isinstance(variant, PolicyLoss)
            divergence, factors = self._summed(variant.divergence.clone()).tolist()
            if factors:
                logs["kl"] = divergence / factors
            variant.divergence.zero_()
            self.counts = Counts()
        super().log(logs, start_time)
