"""Outlined models and traced passes, against models and passes that are real."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base
from torch.profiler import ProfilerActivity, profile

from sidtune.batching.layouts import MicroBatch
from sidtune.config.training import StateKind
from sidtune.inputs import Inputs
from sidtune.model.load import load_model, load_outline
from sidtune.model.optimizer.adamw import CompactAdamW
from sidtune.model.tuning.quantised import quantised_layers
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.memory.estimate import Untraceable, estimate, weight_bytes
from sidtune.training.memory.fit import changed
from sidtune.training.memory.trace import trace_pass

ROWS, WIDTH, EVERY = 4, 192, 8


def tree_batch() -> MicroBatch:
    """Rows that are one sequence each, with a label at every eighth place."""
    places = np.arange(ROWS * WIDTH).reshape(ROWS, WIDTH)
    ends = np.full((ROWS, WIDTH), WIDTH)
    rows, columns = (index.ravel() for index in np.divmod(places[:, ::EVERY], WIDTH))
    labels = np.arange(len(rows)) % 7
    depths = places % WIDTH
    return MicroBatch(
        depths, None, depths, ends, rows, columns, labels, np.zeros_like(labels), ROWS * WIDTH
    )


def allocated_at_most(model: Any, batch: MicroBatch, bf16: bool) -> int:
    """The highest sum of what torch's allocator gave and took in a real pass, by its profiler."""
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    loss_module = LabelLoss(model, 1).train()
    profiled: Any
    given: Any = batch.to(torch.device("cpu"))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _ = loss_module(**given)
        loss.backward()
    events = profiled.profiler.kineto_results.events()
    found = [event for event in events if event.name() == "[memory]"]
    found.sort(key=lambda event: event.start_ns())
    return int(max(accumulate(event.nbytes() for event in found)))


@pytest.mark.parametrize(
    ("tuning", "checkpointing", "bf16"),
    [("full", False, True), ("lora", True, True), ("frozen", False, False)],
)
def test_a_traced_pass_holds_what_a_real_one_does(
    tmp_path: Path, tuning: str, checkpointing: bool, bf16: bool
) -> None:
    base = make_base(tmp_path / "base")
    config = tiny_config(tmp_path, model={"base": str(base), "tuning": tuning})
    given = (config.model, Inputs(config).vocabulary, config.seed)
    real, batch = load_model(*given), tree_batch()
    if checkpointing:
        real.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    expected = allocated_at_most(real, batch, bf16)
    traced = trace_pass(load_outline(*given), batch, bf16, checkpointing)
    assert traced.peak == pytest.approx(expected, rel=0.04)
    assert 0 < traced.logits < traced.peak


def test_a_pass_whose_shapes_depend_on_values_is_not_estimated(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen3_moe")
    config = tiny_config(tmp_path, model={"base": str(base)})
    with pytest.raises(Untraceable, match="qwen3_moe"):
        estimate(config, Inputs(config), tree_batch(), False, 1, "cpu")


@pytest.mark.parametrize("tuning", ["full", "frozen", "lora"])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_an_outline_is_the_model_without_values(
    tmp_path: Path, tuning: str, dtype: torch.dtype | None
) -> None:
    base = make_base(tmp_path / "base", "llama", False, dtype=torch.bfloat16)
    dropout = {"residual_dropout": 0.1, "embedding_dropout": 0.1}
    config = tiny_config(tmp_path, model={"base": str(base), "tuning": tuning, **dropout})
    given = (config.model, Inputs(config).vocabulary, config.seed)

    def described(model: Any) -> dict[str, Any]:
        return {
            name: (weight.shape, weight.dtype, weight.requires_grad)
            for name, weight in model.named_parameters()
        }

    outlined = load_outline(*given, dtype=dtype)
    assert outlined.device.type == "meta"
    assert described(outlined) == described(load_model(*given, dtype=dtype))


@pytest.mark.parametrize("kind", ["fp32", "bf16", "8bit"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_optimizers_state_is_counted_as_it_is_held(
    tmp_path: Path, kind: StateKind, tuning: str
) -> None:
    base = str(make_base(tmp_path / "base", width=64))
    training = {"optimizer_state": kind}
    config = tiny_config(tmp_path, model={"base": base, "tuning": tuning}, training=training)
    inputs = Inputs(config)
    model = load_model(config.model, inputs.vocabulary, config.seed)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = CompactAdamW(trained, kind, False, 0, lr=1e-3)
    states = [optimizer.begun(weight) for weight in trained]
    held = sum(v.nbytes for state in states for name, v in state.items() if name != "step")
    found = estimate(config, inputs, tree_batch(), False, 1, "cpu")
    assert found.optimizer == held
    moved = changed(config, {"training.offload_optimizer": True})
    there = estimate(moved, inputs, tree_batch(), False, 1, "cpu")
    assert (there.optimizer, there.offloaded, there.total) == (0, held, found.total - held)
    shards = changed(moved, {"training.distributed": "fsdp2"})
    assert estimate(shards, inputs, tree_batch(), False, 4, "cpu").offloaded == -(-held // 4)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantised_weights_are_counted_as_they_are_held(tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("bitsandbytes")
    base = make_base(tmp_path / "base", "qwen3", dtype=torch.bfloat16, width=128)
    model = {"base": str(base), "tuning": "lora", "quantize": kind}
    config = tiny_config(tmp_path, model=model)
    given = (config.model, Inputs(config).vocabulary, config.seed)
    real = load_model(*given)
    scales = 0
    for layer in quantised_layers(real).values():
        state = layer.weight.quant_state.absmax if kind == "nf4" else layer.weight.SCB
        scales += state.nbytes
    held = sum(tensor.nbytes for tensor in [*real.parameters(), *real.buffers()])
    assert weight_bytes(load_outline(*given), kind) == held + scales
