"""What a model does with its output head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sidtune.model.frozen import SidHead


def base_head(head: Any) -> Any:
    """The original head, of a frozen model too."""
    return head.base if isinstance(head, SidHead) else head


def head_device(head: Any) -> torch.device:
    """Where the head's weights are."""
    device: torch.device = next(head.parameters()).device
    return device


@torch.no_grad()
def ends_model(model: PreTrainedModel) -> bool:
    """Whether the model returns its head's output as it is, without a soft cap or a scale; seen on one token."""
    head: Any = model.get_output_embeddings()
    seen: list[Tensor] = []
    watch = head.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        token = torch.zeros(1, 1, dtype=torch.long, device=head_device(head))
        logits = model(input_ids=token, use_cache=False).logits
    finally:
        watch.remove()
    return torch.equal(logits, seen[0])
