"""The training loss; only hidden states at label positions reach the output head."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from sidtune.model.attention import attention_dtype, tree_mask
from sidtune.model.output_head import ends_model
from sidtune.training.loss.blockwise import blockwise_loss
from sidtune.training.loss.variant import LossVariant


class _Question(NamedTuple):
    """What a forward pass asks of the output head, besides the hidden states: see `MicroBatch` and
    `blockwise_loss`.
    """

    rows: Tensor
    columns: Tensor
    labels: Tensor
    scale: float
    variant: LossVariant | None
    nodes: Tensor | None
    terms: Tensor | None


class LabelLoss(nn.Module):
    """A language model that returns the loss of its labels; in evaluation mode, always the negative
    log likelihood.

    The output head's forward is replaced: it selects the hidden states at label positions and
    returns the loss. The head is still called as a module, so wrappers such as FSDP see the call.
    If something follows the head in the model (a soft cap, a scale), it returns logits, and the
    loss is computed from the model's output.

    Args:
        model: any causal language model of Transformers.
        tasks: number of tasks.
        variant: the loss that training minimises instead of the negative log likelihood.
    """

    def __init__(
        self, model: PreTrainedModel, tasks: int, variant: LossVariant | None = None
    ) -> None:
        super().__init__()
        self.model, self.tasks, self.variant = model, tasks, variant
        self._ends_model = ends_model(model)
        self._asked: _Question | None = None
        self._losses: Tensor | None = None
        head: Any = model.get_output_embeddings()
        head.forward = partial(self._answer, head)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        ends: Tensor | None,
        rows: Tensor,
        columns: Tensor,
        labels: Tensor,
        tasks: Tensor,
        nodes: Tensor | None = None,
        terms: Tensor | None = None,
        scale: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """The loss of a micro-batch; arguments as in `MicroBatch`.

        Returns:
            `scale` times the loss summed over labels, differentiable, and the unscaled sum per
            task, `(tasks,)`, detached; both in float32 or wider.
        """
        # Evaluation uses the plain loss, since losses of different variants are not comparable.
        variant = self.variant if self.model.training else None
        question = _Question(rows, columns, labels, scale, variant, nodes, terms)
        loss, losses = self._ask(question, input_ids, attention_mask, position_ids, ends)
        return loss, losses.new_zeros(self.tasks).index_add(0, tasks, losses)

    @torch.no_grad()
    def likelihoods(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        ends: Tensor | None,
        rows: Tensor,
        columns: Tensor,
        labels: Tensor,
        nodes: Tensor | None = None,
        **_: Tensor | None,
    ) -> Tensor:
        """The log-probability of each label, `(labels,)`, under the variant's normaliser, in
        training mode or not; arguments as in `MicroBatch`.
        """
        question = _Question(rows, columns, labels, 1.0, self.variant, nodes, None)
        return -self._ask(question, input_ids, attention_mask, position_ids, ends)[1]

    def _ask(
        self,
        question: _Question,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        ends: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The scaled sum of the labels' losses, differentiable, and the loss of each, detached."""
        if ends is not None:
            attention_mask = tree_mask(ends, attention_dtype(self.model.dtype, ends.device))
        self._asked = question
        try:
            output = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=False,
            ).logits
            if self._ends_model:
                assert self._losses is not None
                return output[0], self._losses
        finally:
            self._asked = self._losses = None
        logits = output[0].to(torch.promote_types(output.dtype, torch.float32))
        if question.variant is None:
            losses = F.cross_entropy(logits, question.labels, reduction="none")
        else:
            losses = question.variant(logits, question.labels, question.nodes, question.terms)
        return losses.sum() * question.scale, losses.detach()

    def _answer(self, head: Any, hidden: Tensor) -> Tensor:
        """`(batch, length, hidden)` → the loss `(1,)` or logits `(1, labels, vocabulary)`; outside
        of `forward`, all logits.
        """
        if self._asked is None:
            return type(head).forward(head, hidden)  # type: ignore[no-any-return]
        rows, columns, *question = self._asked
        picked = hidden[rows, columns]
        if not self._ends_model:
            return type(head).forward(head, picked[None])  # type: ignore[no-any-return]
        loss: Tensor
        loss, self._losses = blockwise_loss(picked, head, *question)
        # A copy, no view: FSDP2 hooks into what a module returns.
        return loss[None].clone()
