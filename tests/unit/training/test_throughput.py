"""Throughput between two log entries, by hand."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sidtune.training.throughput import Throughput, peak_gib


def step(examples: int, *batches: tuple[int, tuple[int, int]]) -> Any:
    made = [SimpleNamespace(tokens=n, input_ids=np.zeros(shape)) for n, shape in batches]
    return {"examples": examples, "micro_batches": made, "label_count": 1}


def test_rates_leave_out_the_time_of_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    counted = Throughput()
    counted.add(step(6, (30, (4, 10)), (10, (1, 10))))
    counted.add(step(2, (5, (1, 10))))
    assert (counted.examples, counted.tokens, counted.places) == (8, 45, 60)
    clock[0], counted.waited, counted.evaluated = 110.0, 0.5, 6.0
    # Two ranks that counted the same.
    assert counted.entry(90.0, 120.0) == {
        "examples_per_second": 2.0,
        "tokens_per_second": 22.5,
        "useful_tokens": 0.75,
        "waiting": 0.125,
    }
    counted.restart()
    assert (counted.examples, counted.tokens, counted.places) == (0, 0, 0)
    assert (counted.waited, counted.evaluated, counted.since) == (0.0, 0.0, 110.0)


def test_memory_is_that_of_this_process_without_a_gpu() -> None:
    before = peak_gib(torch.device("cpu"))
    held = np.ones(2**27, np.uint8)
    after = peak_gib(torch.device("cpu"))
    assert held.sum() == 2**27
    assert before <= after < 100
    assert after > 0.125
