"""What the rows of new tokens start as."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Enough to tell new tokens apart from the first step, little enough to stay inside the cloud of known rows.
NOISE_SHARE = 0.1


def mean_rows(known: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The mean of the known rows plus Gaussian noise, a tenth of their spread in each dimension.

    Args:
        known: `(tokens, hidden)`, the rows of the tokens that the base's tokenizer had.
        count: number of new rows.
        generator: on the CPU.

    Returns:
        `(count, hidden)`, float32.
    """
    rows = known.float()
    noise = torch.randn(count, rows.shape[1], generator=generator)
    return rows.mean(0) + NOISE_SHARE * rows.std(0, unbiased=False) * noise


INITIALISERS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {"mean": mean_rows}
