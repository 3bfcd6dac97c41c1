"""The output head of a model, and whether its output is the model's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import PreTrainedModel

from sidtune.model.attention import probing
from sidtune.model.tuning.frozen import SidHead


def base_head(head: Any) -> Any:
    """The base's head, also of a frozen model."""
    return head.base if isinstance(head, SidHead) else head


def head_device(head: Any) -> torch.device:
    """The device of the head's weights."""
    device: torch.device = next(head.parameters()).device
    return device


@torch.no_grad()
def ends_model(model: PreTrainedModel) -> bool:
    """Whether the model's logits are its hidden states times a matrix, without a soft cap, a scale
    or a norm of rows.

    Tested by replacing the head's output with known numbers, which the model must return unchanged;
    without numbers, it must return the same tensor.
    """
    head: Any = model.get_output_embeddings()
    if type(base_head(head)) is not nn.Linear:
        return False
    marks: list[Tensor] = []

    def mark(_: Any, __: Any, output: Tensor) -> Tensor:
        marks.append(
            torch.linspace(-60, 60, output.numel(), device=output.device)
            .to(output.dtype)
            .view_as(output)
        )
        return marks[-1]

    watch = head.register_forward_hook(mark)
    try:
        token = torch.zeros(1, 1, dtype=torch.long, device=head_device(head))
        with probing(model):
            logits = model(input_ids=token, use_cache=False).logits
    finally:
        watch.remove()
    if isinstance(logits, FakeTensor):
        return logits is marks[0]
    return torch.equal(logits, marks[0])
