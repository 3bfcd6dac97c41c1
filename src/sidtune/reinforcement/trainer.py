"""The Trainer of reinforcement: a step is the model's own answers to the step's prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sidtune.batching.layouts import idle_micro_batch
from sidtune.batching.steps import Step
from sidtune.config.rl import RlConfig
from sidtune.decoding.decoder import Decoder, make_decoder
from sidtune.files.weight_files import refusing_damage
from sidtune.reinforcement.grpo import teaches, wanted
from sidtune.reinforcement.policy_loss import OLD, REFERENCE, PolicyLoss
from sidtune.reinforcement.rollouts import Rollout, Rollouts
from sidtune.reinforcement.trees import Edges, Placed, edges_of
from sidtune.runs.checkpoints import folder_of
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
        start: the weights that are averaged, as they were; empty without `keep_start`.
    """

    rollouts: Rollouts
    options: RlConfig
    reference: LabelLoss | None
    start: list[Tensor]


@dataclass(frozen=True)
class Answered:
    """Answers that one or more updates learn from.

    Args:
        rollout: the answers.
        edges: the labels of the trees that they make.
        placed: the same in micro-batches.
    """

    rollout: Rollout
    edges: Edges
    placed: list[Placed]


def averaged_weights(model: nn.Module) -> list[Tensor]:
    """The trained weights that are averaged, without their history. Of an adapter's product B·A
    only B, which is 0 at the start, so that the product is the average.
    """
    return [
        weight.detach()
        for name, weight in model.named_parameters()
        if weight.requires_grad and ".lora_A." not in name
    ]


class ReinforcementTrainer(StepTrainer):
    """As `StepTrainer`, with micro-batches that hold the current model's answers.

    The plan names the prompts of a step. The loss is the mean over the step's prompts of all
    processes, so their number is known without communication, and a group that teaches nothing is
    counted without being computed.

    Args:
        reinforcement: what is asked, rewarded and compared with.
    """

    # Models of a run are so alike that half a standard error would be all that it gains.
    errors = False

    def __init__(self, *args: Any, reinforcement: Reinforcement, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The loss of reinforcement says nothing about how well it goes.
        self.remove_callback(LossWatch)
        self.reinforcement, self.counts = reinforcement, Counts()
        if reinforcement.reference:
            reinforcement.reference.to(self.args.device).eval()
        self.decoder: Decoder[Any] | None = None
        self.answered: Answered | None = None

    def training_step(  # type: ignore[override]
        self, model: nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> Tensor:
        """Ask for answers, unless this update goes on with those of the last, and learn from
        them.
        """
        number, updates = self.state.global_step, self.reinforcement.options.updates
        if number % updates == 0 or self.answered is None:
            self.answered = self._answered(number)
        self._watch(self.answered)
        return super().training_step(model, self._step(self.answered, number))

    def _step(self, answered: Answered, number: int) -> Step:
        """The answers as a step."""
        prompts = self.steps.plan.step(number)
        batches = [placed.told(answered.edges.terms) for placed in answered.placed]
        if not batches:
            batches = [idle_micro_batch(self.steps.corpus[int(prompts[0])], self.steps.layout)]
        return Step(micro_batches=batches, label_count=len(prompts), examples=len(prompts))

    def _lay_out(self, number: int) -> Step:
        """See `StepTrainer`."""
        assert self.answered
        placed = self.answered.edges.laid_out(self.steps.layout)
        self.answered = replace(self.answered, placed=placed)
        return self._step(self.answered, number)

    def _answered(self, number: int) -> Answered:
        """The answers of a step, laid out, with the log-probabilities that they are compared
        with.
        """
        rollouts, options = self.reinforcement.rollouts, self.reinforcement.options
        examples, kept = self.steps.share(number), self._kept(number)
        if kept is None:
            self.language_model.eval()
            self.decoder = self.decoder or make_decoder(
                self.language_model, self.accelerator.autocast
            )
            rollout = rollouts.ask(self.decoder, examples, number // options.updates)
        else:
            rollout = rollouts.judged(examples, kept["sids"].numpy(), kept["entropy"].numpy())
        paths = rollouts.corpus.paths
        asked = wanted(rollout.groups, rollout.rewards, paths, options.beta, options.sft_weight)
        levels = options.level_weights or ()
        edges = edges_of(rollout.prompts, rollout.tasks, asked, paths, levels)
        answered = Answered(rollout, edges, edges.laid_out(self.steps.layout))
        if self.reinforcement.reference:
            self._compare(answered, self.reinforcement.reference, REFERENCE)
        if kept is not None:
            edges.terms[:, OLD] = kept["old"].numpy()
        elif options.updates > 1:
            self._compare(answered, self.loss_module, OLD)
        return answered

    def _compare(self, answered: Answered, model: LabelLoss, term: int) -> None:
        """Write down the log-probabilities of all labels under a model."""
        for batch, labels in answered.placed:
            with self.accelerator.autocast():
                placed: dict[str, Any] = batch.to(self.args.device)
                known = model.likelihoods(**placed)
            answered.edges.terms[labels, term] = known.float().cpu().numpy()

    # --- what is evaluated and saved ---

    def _average(self) -> list[Tensor]:
        """Average the weights with those of the start, and return them as they were before.

        The sources are WiSE-FT (Wortsman et al., 2022, “Robust fine-tuning of zero-shot models”)
        and, for reinforcement, WARP (Ramé et al., 2024, section 3.3).
        """
        start, share = self.reinforcement.start, self.reinforcement.options.keep_start
        trained = averaged_weights(self.language_model) if start else []
        before = [weight.clone() for weight in trained]
        for weight, first in zip(trained, start, strict=True):
            weight.lerp_(first.to(weight.device), share)
        return before

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As `StepTrainer`, of the averaged weights."""
        before = self._average()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            for weight, value in zip(averaged_weights(self.language_model), before, strict=False):
                weight.copy_(value)

    @torch.no_grad()
    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._average()

    # --- updates that follow the first on one rollout ---

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the answers too, which the next update may go on with; called on every rank."""
        super()._save_rng_state(output_dir)
        if self.state.global_step % self.reinforcement.options.updates and self.answered:
            rollout, terms = self.answered.rollout, self.answered.edges.terms
            kept = {
                "examples": torch.from_numpy(self.steps.share(self.state.global_step)),
                "sids": torch.from_numpy(rollout.groups.sids),
                "entropy": torch.from_numpy(rollout.entropy),
                "old": torch.from_numpy(terms[:, OLD].copy()),
            }
            safetensors.torch.save_file(kept, Path(output_dir) / self._file)

    def _kept(self, number: int) -> dict[str, Tensor] | None:
        """The answers that the checkpoint holds which this step resumes from; None to ask anew."""
        if number % self.reinforcement.options.updates == 0:
            return None
        file = folder_of(self.run, number) / self._file
        if not file.is_file():
            return None
        with refusing_damage(file.parent):
            kept = safetensors.torch.load_file(file)
        # With another number of processes, this one may have had as many other examples.
        examples = kept.get("examples")
        same = examples is not None and np.array_equal(examples.numpy(), self.steps.share(number))
        return kept if same else None

    @property
    def _file(self) -> str:
        return f"rollout-{self.args.process_index}.safetensors"

    # --- logs ---

    def _watch(self, answered: Answered) -> None:
        rollout, counts = answered.rollout, self.counts
        groups = rollout.groups
        taught = teaches(rollout.rewards, groups.there)
        counts.prompts += len(taught)
        counts.answers += groups.there.sum()
        counts.reward += rollout.rewards.sum()
        counts.hit += groups.hits.any(axis=1).sum()
        counts.taught += taught.sum()
        counts.entropy += rollout.entropy.sum()
        counts.tokens += sum(placed.batch.tokens for placed in answered.placed)
        counts.padded += self._plain_tokens(rollout)

    def _plain_tokens(self, rollout: Rollout) -> int:
        """Tokens of all answers, each behind a prompt of its own."""
        lengths = np.array([len(prompt) for prompt in rollout.prompts])
        there, paths = rollout.groups.there, self.reinforcement.rollouts.corpus.paths
        answers: NDArray[np.int64] = np.where(there, paths.lengths[rollout.groups.sids], 0)
        return int((lengths * there.sum(axis=1)).sum() + answers.sum())

    def _count(self, step: Step, sums: Tensor) -> None:
        """Only prompts: a loss per task and label would say nothing."""
        self._throughput.add(step)

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
