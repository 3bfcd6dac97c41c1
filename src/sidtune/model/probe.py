"""Asking a model for something that it may not be able to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
# How PyTorch's allocators and the libraries on it say that memory ran out, where the error has no
# type of its own.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def attempt(probe: Callable[[], T]) -> T | None:
    """What a probe returns, or None where the model cannot do what the probe asks for.

    What a model raises for an argument that it does not know is of any type. Running out of memory
    says nothing of what the model can do, so that error is passed on.
    """
    try:
        return probe()
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        return None


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error is about memory, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
