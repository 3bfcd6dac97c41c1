"""Custom attention masks and left padding, and probes of which models support them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from sidtune.model.probe import attempt
from sidtune.model.sharding.shards import computing, gathered_narrow

Precision = Callable[[], AbstractContextManager[Any]]
# Layer types, as named in Transformers' configurations, that respect an explicit mask.
MASKABLE_LAYERS = {"full_attention", "sliding_attention"}
# Implementations of attention that take an explicit mask.
FLOAT32_ATTENTION = "sdpa_float32"
MASKED_ATTENTION = ("sdpa", "eager", FLOAT32_ATTENTION)
PROBED = 16


def attend_in_float32(model: PreTrainedModel) -> None:
    """Compute attention, and nothing else, in float32 under autocast, if the model uses SDPA.

    On a CPU, its backward pass takes five to ten times as long in bfloat16, which outweighs the
    gain from faster matmuls.
    """
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(FLOAT32_ATTENTION)


def _float32_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Arguments and result as Transformers' `sdpa_attention_forward`."""
    mask = attention_mask
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    with torch.autocast(query.device.type, enabled=False):
        output, _ = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), mask, **given
        )
    return output.to(query.dtype), None


AttentionInterface.register(FLOAT32_ATTENTION, _float32_attention)
AttentionMaskInterface.register(FLOAT32_ATTENTION, sdpa_mask)


def takes_masks(model: PreTrainedModel) -> bool:
    """Whether all layer types of a model support an explicit mask.

    Windows counted in cache positions, and chunks, only affect long sequences: a probe of a few
    tokens would miss them.
    """
    text = model.config.get_text_config()
    return (
        not hasattr(text, "attention_types")
        and set(getattr(text, "layer_types", None) or ()) <= MASKABLE_LAYERS
    )


def added_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive attention mask: zero where `seen`, else the dtype's minimum.

    Args:
        seen: `(batch, queries, keys)`, booleans.

    Returns:
        `(batch, 1, queries, keys)`.
    """
    added = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return added.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def tree_mask(ends: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask by which each token of a row of prefix trees attends to itself and its
    ancestors.

    Args:
        ends: `(batch, length)`, the first token after each one's subtree, tokens in preorder.
    """
    place = torch.arange(ends.shape[1], device=ends.device)
    return added_mask((place <= place[:, None]) & (place[:, None] < ends[:, None]), dtype)


def attention_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype that attention computes in, for a model of this dtype under the current
    autocast.
    """
    return (
        torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype
    )


def probed_ids(model: PreTrainedModel, count: int) -> Tensor:
    """Token ids to probe a model with, `(count,)`: from the middle of its vocabulary. The first
    ones are often special tokens; in sequences that no model has seen, rounding can grow without
    bound.
    """
    size = int(model.config.get_text_config().vocab_size)
    ids: Tensor = (size // 2 + torch.arange(count, device=model.device)) % size
    return ids


def agree(seen: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two results, `(…, features)`, are identical up to rounding in `dtype`: whether at no
    position their mean square difference is more than a part of the variance.

    Rounding in float32 stays far below the square root of its epsilon, in 16 bits below the fourth
    root: of SmolLM2 135M 0.00002 and, in bfloat16, 0.03 for hidden states and 0.13 for logits were
    measured. A wrong mask or position gives about 1 in a trained model.
    """
    seen, expected = seen.float(), expected.float()
    error = (seen - expected).square().mean(-1).sqrt() / expected.std(-1)
    root = 2 if dtype == torch.float32 else 4
    return bool(error.max() <= torch.finfo(dtype).eps ** (1 / root))


def probed_in(model: PreTrainedModel, precision: Precision = nullcontext) -> Precision:
    """The context for the passes of a probe: no autocast where all weights are computed with in
    float32, so that it shows the smallest difference; elsewhere `precision`.
    """
    floats = (weight.dtype for weight in model.parameters() if weight.is_floating_point())
    if gathered_narrow(model) or any(dtype != torch.float32 for dtype in floats):
        return precision
    return partial(torch.autocast, model.device.type, enabled=False)


@contextmanager
def probing(model: PreTrainedModel) -> Iterator[None]:
    """The context of a probe: evaluation mode, and that of `probed_in`."""
    with _evaluating(model), computing(model), probed_in(model)():
        yield


@torch.no_grad()
def runs_trees(model: PreTrainedModel, longest: int) -> bool:
    """Whether a model gives a prefix tree the same logits as its sequences, tested on three; on the
    meta device, where nothing is computed, whether its configuration says nothing against it.

    Args:
        longest: maximum tokens of a sequence; a sliding window must hold them all.

    Raises:
        torch.OutOfMemoryError: where memory runs out, which says nothing of the model.
    """
    text = model.config.get_text_config()
    window = getattr(text, "sliding_window", None)
    if model.config._attn_implementation not in MASKED_ATTENTION or not takes_masks(model):
        return False
    if window and window < longest:
        return False
    if model.device.type == "meta":
        return not getattr(model, "_is_stateful", False)
    with probing(model):
        return _tree_equals_sequences(model)


@torch.no_grad()
def takes_left_padding(model: PreTrainedModel) -> bool:
    """Whether left padding leaves the logits of a sequence unchanged, given its mask and position
    ids; on the meta device, whether the model is not recurrent.

    Recurrent models may read the padding into their state, and others count positions from the
    first column.

    Raises:
        torch.OutOfMemoryError: where memory runs out, which says nothing of the model.
    """
    # How padding affects recurrent models depends on their weights, and may be too little for a
    # probe to detect.
    if getattr(model, "_is_stateful", False):
        return False
    device = model.device
    if device.type == "meta":
        return True
    ids = probed_ids(model, PROBED)[None]
    mask = (torch.arange(2 * PROBED, device=device) >= PROBED).long()[None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = torch.cat([torch.zeros_like(ids), ids], dim=1)
    given = {"attention_mask": mask, "position_ids": positions, "use_cache": False}
    with probing(model):
        dtype = attention_dtype(model.dtype, device)
        expected = model(input_ids=ids, use_cache=False).logits[0]
        seen = attempt(lambda: model(input_ids=padded, **given).logits[0, PROBED:])
    return seen is not None and agree(seen, expected, dtype)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode within the context."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _tree_equals_sequences(model: PreTrainedModel) -> bool:
    """Compare one row of trees with its sequences one by one: two that share a prefix of `PROBED`
    tokens, and one separate.

    The two have `PROBED` more tokens after the prefix, so that distances counted in columns of the
    row are detected.
    """
    size, device = PROBED, model.device
    dtype = attention_dtype(model.dtype, device)
    row = probed_ids(model, 4 * size)[None]
    prefix, left, right, apart = torch.arange(4 * size, device=device).view(4, size)
    sequences = (torch.cat([prefix, left]), torch.cat([prefix, right]), apart)
    expected = [model(input_ids=row[:, places], use_cache=False).logits[0] for places in sequences]
    depths = torch.cat([prefix, left, left, prefix])[None]
    ends = torch.tensor([3, 2, 3, 4], device=device).repeat_interleave(size)[None] * size
    given = {"attention_mask": tree_mask(ends, dtype), "position_ids": depths, "use_cache": False}
    seen = attempt(lambda: model(input_ids=row, **given).logits[0])
    if seen is None:
        return False
    return all(
        agree(seen[places], right, dtype) for places, right in zip(sequences, expected, strict=True)
    )
