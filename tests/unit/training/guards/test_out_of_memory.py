"""What runs out of memory is told with the settings to change, whatever reports it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny_data import tiny_config

from sidtune.base.errors import OneProcessError
from sidtune.training.guards.out_of_memory import explaining_out_of_memory


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"), "GPU"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.7 GB). Use PYTORCH"), "GPU"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "machine"),
        (MemoryError(), "machine"),
    ],
)
def test_every_allocator_is_understood(tmp_path: Path, error: Exception, said: str) -> None:
    with pytest.raises(OneProcessError) as told, explaining_out_of_memory(tiny_config(tmp_path)):
        raise error
    assert told.value.message.startswith(f"the {said} ran out of memory: ")
    assert not told.value.message.endswith(": ")
    assert "training.max_tokens" in told.value.hint


def test_other_errors_stay(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="shapes"),
        explaining_out_of_memory(tiny_config(tmp_path)),
    ):
        raise RuntimeError("shapes")
