"""Alternatives to the plain negative log likelihood, computed from the logits of labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sidtune.batching.prefixes import Prefixes
from sidtune.config.loss import LossConfig
from sidtune.decoding.prompts import Prompts
from sidtune.decoding.trie import Trie, build_trie
from sidtune.inputs import Inputs


def make_variant(config: LossConfig, prefixes: Prefixes | None) -> LossVariant | None:
    """The configured loss; None for the plain one, which has a faster implementation."""
    return None if config == LossConfig() else LossVariant(config, prefixes)


def sid_prefixes(inputs: Inputs) -> Prefixes | None:
    """The prefixes of the catalogue's SIDs as in evaluation; None if the loss needs none."""
    if not inputs.config.loss.looks_at_prefixes:
        return None
    prompts = Prompts(inputs.bundle, inputs.vocabulary.tokenizer)
    return prefixes_of(build_trie(prompts.sids[0], prompts.closing))


def prefixes_of(trie: Trie) -> Prefixes:
    """The nodes of a trie, numbered across its levels."""
    counts = [len(level.columns) for level in trie.levels]
    before = np.cumsum([0, *counts])
    starts = [
        level.starts[:-1].numpy() + offset
        for level, offset in zip(trie.levels, before[:-1], strict=True)
    ]
    return Prefixes(
        np.concatenate([*starts, np.full(counts[-1] + 1, before[-1])]),
        np.concatenate([level.tokens[level.columns].numpy() for level in trie.levels]),
    )


class LossVariant(nn.Module):
    """The loss of each label.

    Cross entropy over the whole vocabulary or, for SID tokens, over the tokens that may follow
    their prefix.

    Args:
        config: other than the default, which `blockwise_loss` computes itself.
        prefixes: the prefixes that `nodes` index; None if the loss does not need them.
    """

    starts: Tensor
    tokens: Tensor

    def __init__(self, config: LossConfig, prefixes: Prefixes | None) -> None:
        super().__init__()
        assert (prefixes is not None) == config.looks_at_prefixes
        self.config, self.has_prefixes = config, prefixes is not None
        if prefixes is None:
            return
        self.fan_out = int(np.diff(prefixes.starts).max())
        self.register_buffer("starts", torch.from_numpy(prefixes.starts), persistent=False)
        self.register_buffer("tokens", torch.from_numpy(prefixes.tokens), persistent=False)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        nodes: Tensor | None,
        terms: Tensor | None = None,
    ) -> Tensor:
        """The loss of each label, `(labels,)`.

        Args:
            logits: `(labels, vocabulary)`, in float32 or wider.
            labels: `(labels,)` token ids.
            nodes: `(labels,)`, the SID prefix that each one continues, -1 for none.
            terms: `(labels, …)`, what a subclass needs to know of each label.
        """
        if not self.has_prefixes:
            return self._over_vocabulary(logits, labels)
        assert nodes is not None
        rows, others = torch.nonzero(nodes >= 0)[:, 0], torch.nonzero(nodes < 0)[:, 0]
        of_others = self._over_vocabulary(logits.index_select(0, others), labels[others])
        losses = logits.new_zeros(len(logits)).index_copy(0, others, of_others)
        return losses.index_copy(0, rows, self._of_sid_tokens(logits, labels, nodes, rows))

    def _of_sid_tokens(self, logits: Tensor, labels: Tensor, nodes: Tensor, rows: Tensor) -> Tensor:
        """The losses of the rows whose labels are SID tokens, `(rows,)`."""
        children = self.starts[nodes[rows], None] + torch.arange(self.fan_out, device=rows.device)
        there = children < self.starts[nodes[rows] + 1, None]
        tokens = self.tokens[torch.where(there, children, 0)]
        allowed = logits.take(rows[:, None] * logits.shape[1] + tokens).masked_fill(
            ~there, -torch.inf
        )
        itself = there & (tokens == labels[rows, None])
        return self._over_allowed(allowed, there, itself)

    def _over_vocabulary(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, labels, reduction="none", label_smoothing=self.config.label_smoothing
        )

    def _over_allowed(self, allowed: Tensor, there: Tensor, itself: Tensor) -> Tensor:
        """Cross entropy over the allowed tokens, with label smoothing over the same tokens.

        Args:
            allowed: `(rows, fan-out)` logits, minus infinity where there is no child.
            there, itself: `(rows, fan-out)` masks of the children of each row's prefix, and of the
                label among them.
        """
        smoothing = self.config.label_smoothing
        # Not a product with the mask: minus infinity times zero is NaN.
        losses = allowed.logsumexp(1) - (1 - smoothing) * allowed.masked_fill(~itself, 0.0).sum(1)
        if smoothing:
            losses = losses - smoothing * allowed.masked_fill(~there, 0.0).sum(1) / there.sum(1)
        return losses
