"""The training loss; only hidden states at label positions reach the output head."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from sidtune.model.attention import attention_dtype, tree_mask
from sidtune.model.output_head import ends_model
from sidtune.training.loss.blockwise import blockwise_loss
from sidtune.training.loss.variant import LossVariant


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
        self._asked: (
            tuple[Tensor, Tensor, Tensor, float, LossVariant | None, Tensor | None] | None
        ) = None
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
        scale: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """The loss of a micro-batch; arguments as in `MicroBatch`.

        Returns:
            `scale` times the loss summed over labels, differentiable, and the unscaled sum per
            task, `(tasks,)`, detached; both in float32 or wider.
        """
        # Evaluation uses the plain loss, since losses of different variants are not comparable.
        variant = self.variant if self.model.training else None
        if ends is not None:
            attention_mask = tree_mask(ends, attention_dtype(self.model.dtype, ends.device))
        self._asked = (rows, columns, labels, scale, variant, nodes)
        try:
            output = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=False,
            ).logits
            if self._ends_model:
                assert self._losses is not None
                loss, losses = output[0], self._losses
            else:
                logits = output[0].to(torch.promote_types(output.dtype, torch.float32))
                if variant is None:
                    losses = F.cross_entropy(logits, labels, reduction="none")
                else:
                    losses = variant(logits, labels, nodes)
                loss, losses = losses.sum() * scale, losses.detach()
        finally:
            self._asked = self._losses = None
        return loss, losses.new_zeros(self.tasks).index_add(0, tasks, losses)

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
        return loss[None]
