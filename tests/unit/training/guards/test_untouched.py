"""Checksums of frozen weights: what they must notice, and what they must not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import make_config
from transformers import (
    AutoModelForCausalLM,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from sidtune.base.errors import OneProcessError
from sidtune.model.tuning.frozen import freeze
from sidtune.training.guards.untouched import Untouched, checksum

INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float64: torch.int64}
# Rows of whole words of eight bytes, and rows that are not.
SHAPES = [(4, 8), (4, 3), (5,), (2, 3, 4), (1, 1)]


@given(
    st.sampled_from(SHAPES),
    st.sampled_from(list(INTEGERS)),
    st.integers(0, 2**32),
    st.integers(0, 2**32),
)
def test_any_bit_counts(shape: tuple[int, ...], dtype: torch.dtype, place: int, bit: int) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(place)).to(dtype)
    changed = values.clone()
    words = changed.reshape(-1).view(INTEGERS[dtype])
    words[place % len(words)] ^= 1 << (bit % (8 * words.element_size() - 1))
    assert checksum(changed) != checksum(values)
    assert checksum(values.clone()) == checksum(values)


def test_rows_that_trade_places_count() -> None:
    values = torch.randn(4, 8)
    assert checksum(values[[1, 0, 2, 3]]) != checksum(values)


def test_no_values_have_a_checksum_too() -> None:
    """As one of several processes has them, of a tensor with a single row."""
    assert checksum(torch.empty(0, 3)) == 0


def test_a_part_of_a_larger_tensor_has_the_checksum_of_its_copy() -> None:
    """At an address that is no multiple of a word."""
    parts = torch.randn(41).bfloat16()[1:41].view(5, 8)
    assert checksum(parts) == checksum(parts.clone())
    assert checksum(parts.T) == checksum(parts.T.contiguous())


def test_rows_left_out_do_not_count() -> None:
    values = torch.randn(4, 8)
    changed = values.clone()
    changed[[1, 3]] = 7
    left_out = torch.tensor([1, 3])
    assert checksum(changed, left_out) == checksum(values, left_out)
    changed[2, 5] += 1e-3
    assert checksum(changed, left_out) != checksum(values, left_out)


@pytest.mark.parametrize("tied", [True, False])
def test_every_frozen_weight_is_watched_and_named(tied: bool) -> None:
    set_seed(0)
    model = AutoModelForCausalLM.from_config(make_config("qwen3", tied, 200), dtype=torch.bfloat16)
    sid_ids = torch.arange(90, 110)
    freeze(model, sid_ids)
    watch = Untouched(model)
    watch.on_train_begin(
        TrainingArguments(output_dir="unused", report_to=[]), TrainerState(), TrainerControl()
    )
    with torch.no_grad():
        model.get_input_embeddings().rows.weight += 1
        model.get_input_embeddings().base.weight[sid_ids] += 1
        model.get_output_embeddings().base.weight[sid_ids] += 1
    watch.verify(1)
    assert len(watch.frozen) == sum(not weight.requires_grad for weight in model.parameters()) > 10
    for name, weight in watch.frozen.items():
        kept = weight.flatten()[-1].clone()
        with torch.no_grad():
            weight.view(-1)[-1] += 1
        with pytest.raises(
            OneProcessError, match=f"1 of {len(watch.frozen)} frozen weights have changed.*{name}"
        ):
            watch.verify(1)
        with torch.no_grad():
            weight.view(-1)[-1] = kept
    watch.verify(2)
