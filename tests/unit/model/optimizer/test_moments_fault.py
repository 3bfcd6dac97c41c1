"""Where moments cannot be packed into eight bits, and offloading that does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_data import tiny_config

from sidtune.base.errors import UserError
from sidtune.checks import model as checks
from sidtune.inputs import Inputs
from sidtune.model.optimizer import moments
from sidtune.model.optimizer.moments import moments_fault
from sidtune.training.train import train


def test_float32_and_bfloat16_need_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments.importlib.util, "find_spec", lambda name: None)
    assert moments_fault("fp32") is None
    assert moments_fault("bf16") is None
    fault = moments_fault("8bit")
    assert fault is not None
    assert "needs the package bitsandbytes" in fault.message
    assert fault.hint == "Run: pip install 'sidtune[quantize]'"


def test_kernels_that_are_wrong_or_missing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    assert moments_fault("8bit") is None
    right = functional.dequantize_blockwise

    def wrong(values: torch.Tensor, absmax: torch.Tensor, **options: Any) -> torch.Tensor:
        """As if blocks of 64 took each other's scales."""
        scales = absmax.flip(0) if options["blocksize"] == 64 else absmax
        whole: torch.Tensor = right(values, absmax=scales, **options)
        return whole

    monkeypatch.setattr(functional, "dequantize_blockwise", wrong)
    fault = moments_fault("8bit")
    assert fault is not None
    assert "of the largest" in fault.message
    config = tiny_config(tmp_path, training={"optimizer_state": "8bit"})
    (found,) = checks.optimizer(Inputs(config))
    assert found.severity == "error"
    with pytest.raises(UserError, match="8bit: bitsandbytes does not work on this machine's"):
        train(config)
    monkeypatch.setattr(functional, "quantize_blockwise", None)
    fault = moments_fault("8bit")
    assert fault is not None
    assert "TypeError" in fault.message


def test_offloading_on_a_cpu_is_said_to_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = Inputs(tiny_config(tmp_path, training={"offload_optimizer": True}))
    monkeypatch.setattr(checks, "device_type", lambda: "cpu")
    (found,) = checks.optimizer(inputs)
    assert found.severity == "warning"
    monkeypatch.setattr(checks, "device_type", lambda: "cuda")
    assert not list(checks.optimizer(inputs))
