"""Log-probabilities of a few wanted tokens, with or without the whole vocabulary in the denominator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from sidtune.model.frozen import SidHead
from sidtune.model.head import base_head, ends_model

# Products of states and vocabulary are made in tiles of this size, summed and forgotten. On the CPU a tile stays in the
# cache, which halves the time at a vocabulary of 152,064; on a GPU it must be large enough to fill the device.
TILES = {"cpu": (700, 512)}
LARGE_TILE = (4096, 16384)


class Head:
    """A model's output head, asked for few tokens at few positions.

    Most models return what their head computes. There the product with the vocabulary is never held as a whole. Where
    something follows the head (a soft cap, a scale), the model computes all logits itself.

    Args:
        model: any causal language model, frozen or not.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.module: Any = model.get_output_embeddings()
        self.ends_model = ends_model(model)

    @contextmanager
    def at(self, rows: Tensor, columns: Tensor) -> Iterator[None]:
        """Let the model return states, `(1, positions, …)`, of the given places instead of logits of all.

        Args:
            rows, columns: `(positions,)` each, into batch and length.
        """
        self.model.set_output_embeddings(_Pick(self.module, not self.ends_model, rows, columns))
        try:
            yield
        finally:
            self.model.set_output_embeddings(self.module)

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
        tiles = [slice(start, min(start + columns, self.vocabulary)) for start in range(0, self.vocabulary, columns)]
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
        """States times the rows of some tokens, ids or a slice of them, in float32 whatever the weights are.

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


class _Pick(nn.Module):
    """Stands in for the head: keeps the states at some places, and applies the head where something follows it."""

    def __init__(self, head: Any, applied: bool, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.head, self.applied, self.rows, self.columns = head, applied, rows, columns

    @property
    def weight(self) -> Tensor:
        """The head's own: some models look at its type."""
        weight: Tensor = base_head(self.head).weight
        return weight

    def forward(self, hidden: Tensor) -> Tensor:
        """`(batch, length, hidden)` → `(1, positions, hidden or vocabulary)`."""
        picked = hidden[self.rows, self.columns][None]
        return self.head(picked) if self.applied else picked


def _logsumexp(logits: Tensor) -> Tensor:
    """Over the last axis; by way of log-softmax, which is one pass where torch.logsumexp is four."""
    return logits[:, 0] - logits.log_softmax(-1)[:, 0]
