"""Calls to a model that it may not support."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
# Messages of PyTorch's allocators and libraries for running out of memory, if the error has no type
# of its own.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def attempt(probe: Callable[[], T]) -> T | None:
    """The result of a probe, or None if the model does not support it.

    Models raise exceptions of any type for unsupported arguments. Running out of memory says
    nothing about support, so that error is raised again.
    """
    try:
        return probe()
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        return None


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of a GPU or of the machine ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
