"""Checksums of weights, computed on their device."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

WORD_BYTES = 8
NARROW = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(values: Tensor, left_out: Tensor | None = None) -> Tensor:
    """As `checksum_of`, also of a tensor whose rows are divided among processes; then every process
    must ask at the same time.
    """
    if not isinstance(values, DTensor):
        return checksum_of(values, left_out)
    own, mesh = values.to_local(), values.device_mesh
    first = min(mesh.get_local_rank() * -(-len(values) // mesh.size()), len(values))
    if left_out is not None:
        left_out = left_out[(left_out >= first) & (left_out < first + len(own))] - first
    total = checksum_of(own, left_out, first)
    dist.all_reduce(total, group=mesh.get_group())
    return total


def checksum_of(values: Tensor, left_out: Tensor | None = None, first: int = 0) -> Tensor:
    """A checksum that changes with any single bit, or when rows are swapped: a weighted sum of the
    rows' word sums, modulo 2⁶⁴.

    Args:
        values: `(rows, …)` of any type.
        left_out: `(n,)` rows to leave out.
        first: number of the first row, where these are some rows of a tensor.

    Returns:
        `()`, int64; 0 where there is no value.
    """
    if not values.numel():
        # What a process holds of a tensor with fewer rows than there are processes.
        return torch.zeros((), dtype=torch.int64, device=values.device)
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
    numbers = torch.arange(first, first + len(sums), device=sums.device)
    return (sums * (2 * numbers + 1)).sum()
