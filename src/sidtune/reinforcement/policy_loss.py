"""The objective of a token, from its log-probability and what is asked of it."""

from __future__ import annotations

import torch
from torch import Tensor

from sidtune.batching.prefixes import Prefixes
from sidtune.config.loss import LossConfig
from sidtune.training.loss.variant import LossVariant

# What is known of a label, by column: the advantages of the answers through it, those above and
# those below zero; the factors of divergence and likelihood; log-probabilities under the reference
# and at the time of the rollout, NaN where they are not needed.
REWARD, LOSS, KL, LIKELIHOOD, REFERENCE, OLD = range(6)
TERMS = 6


class PolicyLoss(LossVariant):
    """What a label contributes to the loss that reinforcement minimises.

    With the ratio r = p / p_old of the label's probability now and at the time of the rollout:

    - minus min(r, 1 + clip) times the advantages above zero, and max(r, 1 - clip) times those below
      (Shao et al., 2024, “DeepSeekMath”, eq. 3; the clipped objective of Schulman et al., 2017,
      eq. 7, for one sign of the advantage each);
    - `kl` times the estimate k3 of the divergence from the reference: q / p - log(q / p) - 1 for a
      reference that gives the label the probability q (Schulman, 2020, “Approximating KL
      divergence”; DeepSeekMath, eq. 4);
    - minus `likelihood` times log p.

    Args:
        config: the tokens that probabilities are normalised over.
        prefixes: SID prefixes, with `allowed`.
        clip: how far the ratio may be from 1 before it stops counting.

    Attributes:
        divergence: the sum of k3 over labels, times their factors, and the sum of the factors.
    """

    def __init__(self, config: LossConfig, prefixes: Prefixes | None, clip: float) -> None:
        super().__init__(config, prefixes)
        self.clip = clip
        # Not a buffer: DDP would replace it by that of the first process.
        self.divergence = torch.zeros(2)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        nodes: Tensor | None,
        terms: Tensor | None = None,
    ) -> Tensor:
        """The loss of each label, `(labels,)`; without `terms`, minus its log-probability."""
        now: Tensor = -super().forward(logits, labels, nodes)
        if terms is None:
            return -now
        reward, loss, kl, likelihood, reference, old = terms.to(now.dtype).unbind(1)
        ratio = (now - torch.where(old.isnan(), now.detach(), old)).exp()
        gained = reward * ratio.clamp(max=1 + self.clip) + loss * ratio.clamp(min=1 - self.clip)
        further = torch.where(reference.isnan(), now.detach(), reference) - now
        divergence = kl * (further.exp() - further - 1)
        seen = torch.stack([divergence.detach().sum(), kl.sum()]).float()
        self.divergence = self.divergence.to(seen.device) + seen
        loss_of_label: Tensor = divergence - gained - likelihood * now
        return loss_of_label
