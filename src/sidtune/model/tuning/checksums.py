"""Checksums of weights, computed on their device."""

from __future__ import annotations

import torch
from torch import Tensor

WORD_BYTES = 8
NARROW = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(values: Tensor, left_out: Tensor | None = None) -> Tensor:
    """A checksum that changes with any single bit, or when rows are swapped: a weighted sum of the
    rows' word sums, modulo 2⁶⁴.

    Args:
        values: `(rows, …)` of any type.
        left_out: `(n,)` rows to leave out.

    Returns:
        `()`, int64.
    """
    rows = values.detach().reshape(max(1, len(values)) if values.dim() else 1, -1).contiguous()
    # Words of the tensor's own size would be widened before summing: a copy of eight bytes per
    # value.
    wide = rows.shape[1] * rows.element_size() % WORD_BYTES == 0
    if wide and rows.storage_offset() * rows.element_size() % WORD_BYTES:
        rows = rows.clone()
    words = rows.view(torch.int64 if wide else NARROW[rows.element_size()])
    sums = words.sum(1, dtype=torch.int64)
    if left_out is not None:
        sums[left_out] = 0
    # Odd factors are invertible modulo 2⁶⁴, so a change in any one row changes the sum.
    return (sums * torch.arange(1, 2 * len(sums), 2, device=sums.device)).sum()
