"""Attention in float32 under bfloat16 autocast: the same model, computed otherwise; and probes that
fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.tiny_data import tiny_config
from tests.tiny_models import make_config
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedModel, set_seed

from sidtune.base.errors import UserError
from sidtune.decoding import decoder
from sidtune.decoding.decoder import SharedPrompts
from sidtune.model.attention import (
    FLOAT32_ATTENTION,
    agree,
    attend_in_float32,
    runs_trees,
    takes_left_padding,
    tree_mask,
)
from sidtune.model.sharding.shards import scatter, shard
from sidtune.training.train import train

IDS = torch.arange(24).view(2, 12)
ENDS = torch.tensor([[12, 12, 7, 4, 5, 6, 7, 12, 9, 12, 11, 12]]).expand(2, -1)


class AttentionTypes(TorchDispatchMode):
    """Notes the type that attention is computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "attention" in str(func):
            self.seen.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


def model(architecture: str = "qwen3") -> PreTrainedModel:
    set_seed(0)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(make_config(architecture, True, 200))
    return made.eval()


def logits(made: PreTrainedModel, trees: bool) -> torch.Tensor:
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
    given = {"attention_mask": tree_mask(ENDS, dtype)} if trees else {}
    found: torch.Tensor = made(input_ids=IDS, use_cache=False, **given).logits
    return found


@pytest.mark.parametrize("trees", [True, False])
@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "gpt_neox"])
def test_in_float32_it_is_the_same(architecture: str, trees: bool) -> None:
    made = model(architecture)
    with torch.no_grad():
        expected = logits(made, trees)
        attend_in_float32(made)
        assert made.config._attn_implementation == FLOAT32_ATTENTION
        assert torch.equal(logits(made, trees), expected)


@pytest.mark.parametrize("trees", [True, False])
def test_under_autocast_only_the_products_are_narrow(trees: bool) -> None:
    made = model()
    with torch.no_grad():
        exact = logits(made, trees)
        with torch.autocast("cpu", torch.bfloat16):
            with AttentionTypes() as before:
                narrow = logits(made, trees)
            attend_in_float32(made)
            with AttentionTypes() as after:
                found = logits(made, trees)
    assert (before.seen, after.seen) == ({torch.bfloat16}, {torch.float32})
    assert found.dtype == narrow.dtype == torch.bfloat16
    for close in (narrow, found):
        assert (close.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_it_runs_trees_and_leaves_what_is_saved_alone(tmp_path: Path) -> None:
    made = model()
    made.save_pretrained(tmp_path / "before")
    attend_in_float32(made)
    assert runs_trees(made, 100)
    made.save_pretrained(tmp_path / "after")
    before, after = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after")
    )
    assert before == after


def test_other_attention_stays() -> None:
    made = model()
    made.set_attn_implementation("eager")
    attend_in_float32(made)
    assert made.config._attn_implementation == "eager"


def failing(made: PreTrainedModel, error: Exception) -> PreTrainedModel:
    """The model, raising an error over every mask that it is given."""
    plain = made.forward

    @wraps(plain)
    def forward(*args: Any, **given: Any) -> Any:
        if given.get("attention_mask") is not None:
            raise error
        return plain(*args, **given)

    made.forward = forward  # type: ignore[method-assign]
    return made


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"
        " allocate 1"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]
PROBES: dict[str, Callable[[PreTrainedModel], bool]] = {
    "trees": lambda made: runs_trees(made, 64),
    "left padding": takes_left_padding,
    "shared prompts": lambda made: SharedPrompts(made).exact(),
}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_running_out_of_memory_says_nothing_of_the_model(probe: str, error: Exception) -> None:
    made = model()
    assert PROBES[probe](made)
    with pytest.raises(type(error)):
        PROBES[probe](failing(made, error))


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(
    "error", [ValueError("mask"), RuntimeError("shapes"), IndexError(), KeyError("x"), TypeError()]
)
def test_a_model_that_fails_over_what_a_probe_asks_cannot_do_it(
    probe: str, error: Exception
) -> None:
    assert PROBES[probe](failing(model(), error)) is False


def test_a_probe_without_memory_ends_the_run_with_the_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(*_: Any) -> None:
        raise OUT_OF_MEMORY[0]

    monkeypatch.setattr("sidtune.model.attention.tree_mask", without_memory)
    with pytest.raises(UserError, match="ran out of memory: CUDA out of memory") as raised:
        train(tiny_config(tmp_path))
    assert "training.max_tokens" in str(raised.value)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("bf16", [True, False])
def test_a_sharded_model_is_probed_as_it_computes(bf16: bool, alone: None) -> None:
    """Its float32 weights are bfloat16 in a pass, where training is in bf16."""
    config = make_config("qwen3", True, 200)
    with torch.device("meta"):
        made: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    shard(made.eval(), torch.device("cpu"), bf16)
    scatter(made, model())
    assert runs_trees(made, 64)
    assert takes_left_padding(made)
    assert SharedPrompts(made, lambda: torch.autocast("cpu", torch.bfloat16, enabled=bf16)).exact()


class EveryBeamSeesAll(SharedPrompts):
    """A decoder whose masks are wrong."""

    def _masks(self, state: Any, ancestors: torch.Tensor, depths: Any, depth: int) -> Any:
        return super()._masks(state, torch.ones_like(ancestors), depths, depth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outlying_activations_hide_no_wrong_mask(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretrained models have some activations that are hundreds of times as large as the others,
    and round as coarsely.
    """
    made = model("llama")
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight *= 8 if "layers" in name and weight.dim() == 2 else 1
        made.get_submodule("model.norm").weight[3] = 300.0
    made.to(dtype)  # type: ignore[arg-type]
    assert SharedPrompts(made).exact()
    assert runs_trees(made, 64)
    monkeypatch.setattr(decoder, "SharedPrompts", EveryBeamSeesAll)
    assert not SharedPrompts(made).exact()


def test_rounding_of_outlying_activations_is_no_difference_and_one_position_is() -> None:
    """In bfloat16 thirty layers add up to errors of a hundredth of each value."""
    torch.manual_seed(0)
    expected = torch.randn(2, 50, 64)
    expected[0, :, 3] = 1_000.0
    rounded = expected * (1 + 0.01 * torch.randn(2, 50, 64))
    assert agree(rounded, expected, torch.bfloat16)
    assert not agree(rounded, expected, torch.float32)
    assert agree(expected * (1 + 1e-5 * torch.randn(2, 50, 64)), expected, torch.float32)
    rounded[1, 7] = torch.randn(64)
    assert not agree(rounded, expected, torch.bfloat16)
