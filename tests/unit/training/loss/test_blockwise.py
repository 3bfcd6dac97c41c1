"""The loss in blocks as a part of a larger computation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sidtune.training.loss import blockwise
from sidtune.training.loss.blockwise import blockwise_loss


def test_the_gradient_that_comes_in_is_a_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Always multiplied with on a GPU, where asking whether it is 1 would wait for the device."""
    monkeypatch.setattr(blockwise, "BLOCK_VALUES", 3 * 9)
    torch.manual_seed(0)
    head, hidden = nn.Linear(4, 9).double(), torch.randn(7, 4, dtype=torch.float64)
    labels = torch.randint(9, (7,))
    inputs = (hidden.requires_grad_(), head.weight, head.bias)
    loss, _ = blockwise_loss(hidden, head, labels, 0.5)
    found = torch.autograd.grad(3 * loss, inputs)
    expected = torch.autograd.grad(
        1.5 * F.cross_entropy(head(hidden), labels, reduction="sum"), inputs
    )
    for mine, right in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, right)
