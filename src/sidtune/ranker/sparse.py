"""Sparse matrices: their best entries, and their parts as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

PARTS = ("data", "indices", "indptr")


def cut_rows(matrix: sp.csr_array, most: int) -> sp.csr_array:
    """The highest entries of each row, at most `most`; of equal ones those of the first columns."""
    matrix.sort_indices()
    lengths = np.diff(matrix.indptr)
    long = np.flatnonzero(lengths > most)
    if not len(long):
        return matrix
    # Only rows that are too long are sorted: in a large matrix they are few.
    kept = np.repeat(lengths <= most, lengths)
    places = np.flatnonzero(~kept)
    row = np.repeat(np.arange(len(long)), lengths[long])
    order = np.lexsort((-matrix.data[places], row))
    starts = np.cumsum(lengths[long]) - lengths[long]
    best = np.arange(len(row)) - starts[row] < most
    kept[places[order[best]]] = True
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, most))])
    return sp.csr_array((matrix.data[kept], matrix.indices[kept], offsets), shape=matrix.shape)


def entry_rows(matrix: sp.csr_array) -> NDArray[np.int64]:
    """The row of each entry, `(entries,)`."""
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))


def tensors_of(name: str, matrix: sp.csr_array) -> dict[str, NDArray[Any]]:
    """A matrix as arrays by name; its columns are as many as its rows."""
    kinds = (np.float32, np.int32, np.int64)
    return {
        f"{name}.{part}": np.ascontiguousarray(getattr(matrix, part), kind)
        for part, kind in zip(PARTS, kinds, strict=True)
    }


def matrix_of(name: str, tensors: Mapping[str, NDArray[Any]]) -> sp.csr_array:
    """The square matrix of `tensors_of`; raises ValueError for indices beyond it."""
    data, indices, offsets = (tensors[f"{name}.{part}"] for part in PARTS)
    items = len(offsets) - 1
    matrix = sp.csr_array((data, indices, offsets), shape=(items, items))
    matrix.check_format(full_check=True)
    return matrix
