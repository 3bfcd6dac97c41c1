"""Attention in float32 under bfloat16 autocast: the same model, computed otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import make_config
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedModel, set_seed

from sidtune.model.attention import FLOAT32_ATTENTION, attend_in_float32, runs_trees, tree_mask

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
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after"))
    assert before == after


def test_other_attention_stays() -> None:
    made = model()
    made.set_attn_implementation("eager")
    attend_in_float32(made)
    assert made.config._attn_implementation == "eager"
