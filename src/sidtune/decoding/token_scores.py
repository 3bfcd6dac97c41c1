"""Log-probabilities of a few wanted tokens, with or without the whole vocabulary in the
denominator.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from sidtune.model.output_head import base_head, ends_model
from sidtune.model.tuning.frozen import SidHead

# Products of states and vocabulary are made in tiles of this size, summed and forgotten. On the CPU
# a tile stays in the cache, which halves the time at a vocabulary of 152,064; on a GPU it must be
# large enough to fill the device.
TILES = {"cpu": (700, 512)}
LARGE_TILE = (4096, 16384)


class Head:
    """A model's output head, asked for few tokens at few positions.

    Most models return what their head computes. There the product with the vocabulary is never held
    as a whole. Where something follows the head (a soft cap, a scale), the model computes all
    logits itself.

    Args:
        model: any causal language model, frozen or not.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.module: Any = model.get_output_embeddings()
        self.ends_model = ends_model(model)

    @contextmanager
    def at(self, rows: Tensor, columns: Tensor) -> Iterator[None]:
        """Let the model return hidden states, `(1, positions, …)`, of the given places instead of
        logits of all.

        Forward passes of other threads are not affected.

        Args:
            rows, columns: `(positions,)` each, into batch and length.
        """
        _answer_places(self.module)
        token = _PLACES.set(_Places(rows, columns, head_applies=not self.ends_model))
        try:
            yield
        finally:
            _PLACES.reset(token)

    def logits(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the wanted tokens: `(positions, …)` states → `(positions, tokens)`, float32."""
        if not self.ends_model:
            return states[:, tokens].float()
        return self._product(states, tokens)

    def normaliser(self, states: Tensor) -> Tensor:
        """Log of the sum over the whole vocabulary, `(positions,)`, float32."""
        if not self.ends_model:
            return states.float().logsumexp(-1)
        rows, columns = TILES.get(states.device.type, LARGE_TILE)
        tiles = [
            slice(start, min(start + columns, self.vocabulary))
            for start in range(0, self.vocabulary, columns)
        ]
        parts = states.tensor_split(-(-len(states) // rows))
        return torch.cat([self._summed(part, tiles) for part in parts])

    def _summed(self, states: Tensor, tiles: Sequence[slice]) -> Tensor:
        sums = [_logsumexp(self._product(states, tile)) for tile in tiles]
        return torch.stack(sums).logsumexp(0)

    @property
    def vocabulary(self) -> int:
        """Rows of the head."""
        return len(base_head(self.module).weight)

    def _product(self, states: Tensor, tokens: Tensor | slice) -> Tensor:
        """States times the rows of some tokens, ids or a slice of them, in float32 whatever the
        weights are.

        Rounded logits would make ties, and log-probabilities above zero.
        """
        base = base_head(self.module)
        bias = getattr(base, "bias", None)
        matrix = self._with_own_rows(base.weight[tokens].float(), tokens)
        own_bias = None if bias is None else bias[tokens].float()
        with torch.autocast(states.device.type, enabled=False):
            return F.linear(states.float(), matrix, own_bias)

    def _with_own_rows(self, matrix: Tensor, tokens: Tensor | slice) -> Tensor:
        """A frozen model's SID tokens have rows of their own; tokens ascend."""
        if not isinstance(self.module, SidHead):
            return matrix
        if isinstance(tokens, slice):
            tokens = torch.arange(tokens.start, tokens.stop, device=matrix.device)
        ids = self.module.sid_ids
        place = torch.searchsorted(tokens, ids).clamp(max=len(tokens) - 1)
        there = tokens[place] == ids
        return matrix.index_copy(0, place[there], self.module.weight[there].to(matrix.dtype))


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the hidden states lie that a forward pass is asked for, and whether the head is applied
    to them.
    """

    rows: Tensor
    columns: Tensor
    head_applies: bool


# What the forward pass of this thread is asked for: a new thread starts without a value.
_PLACES: ContextVar[_Places | None] = ContextVar("_PLACES", default=None)
_REPLACING = threading.Lock()


class _Forward:
    """Stands in for a head's forward: as before, except where `_PLACES` asks for some places."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, hidden: Tensor) -> Tensor:
        """`(batch, length, hidden)` → `(1, positions, hidden or vocabulary)`, or what it was
        before.
        """
        places = _PLACES.get()
        if places is None:
            return self.before(hidden)  # type: ignore[no-any-return]
        picked = hidden[places.rows, places.columns][None]
        if not places.head_applies:
            return picked
        # The forward that stood here before may itself look at the places.
        token = _PLACES.set(None)
        try:
            return self.before(picked)  # type: ignore[no-any-return]
        finally:
            _PLACES.reset(token)


def _answer_places(head: Any) -> None:
    """Let a head look at `_PLACES` from now on; its weights and its class stay."""
    with _REPLACING:
        if not isinstance(head.forward, _Forward):
            head.forward = _Forward(head.forward)


def _logsumexp(logits: Tensor) -> Tensor:
    """Over the last axis, minus infinity where all logits are; several times as fast as
    torch.logsumexp on a CPU.

    Logits that need no gradient are overwritten: a second tile would no longer fit the cache beside
    them.
    """
    highest = logits.amax(-1)
    log_probabilities = torch.log_softmax(logits, -1, out=None if logits.requires_grad else logits)
    return (highest - log_probabilities.amax(-1)).masked_fill(highest == -torch.inf, -torch.inf)
