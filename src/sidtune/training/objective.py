"""The one loss: label positions alone reach the output head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel


class LabelLoss(nn.Module):
    """A language model that answers with the summed negative log likelihood of its labels, task by task.

    A hook in front of the output head keeps the hidden states at label positions and drops the others, so whatever the
    model does to its logits (bias, scale, soft cap) stays the model's own.

    Args:
        model: any causal language model of Transformers.
        tasks: number of tasks.
    """

    def __init__(self, model: PreTrainedModel, tasks: int) -> None:
        super().__init__()
        self.model, self.tasks = model, tasks
        self._gather: tuple[Tensor, Tensor] | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._keep_label_positions)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        rows: Tensor,
        columns: Tensor,
        labels: Tensor,
        tasks: Tensor,
    ) -> Tensor:
        """Sum of `-log p(label)` for each task, `(tasks,)`, in float32; arguments as in `MicroBatch`."""
        self._gather = (rows, columns)
        try:
            output = self.model(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
            )
        finally:
            self._gather = None
        losses = F.cross_entropy(output.logits[0].float(), labels, reduction="none")
        return torch.zeros(self.tasks, device=losses.device).index_add(0, tasks, losses)

    def _keep_label_positions(self, head: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Hidden states `(batch, length, hidden)` → `(1, labels, hidden)`."""
        if self._gather is None:
            return None
        rows, columns = self._gather
        return (arguments[0][rows, columns][None], *arguments[1:])
