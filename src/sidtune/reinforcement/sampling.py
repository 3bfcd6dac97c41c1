"""Sampling SIDs without replacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sidtune.decoding.decoder import Decoder, State
from sidtune.decoding.trie import NOTHING, Hint, Trie

NEVER = -torch.inf


@torch.no_grad()
def sample(
    trie: Trie,
    decoder: Decoder[Any],
    state: State,
    count: int,
    temperature: float,
    draws: Sequence[np.random.Generator],
    hint: Hint | None = None,
) -> Tensor:
    """Distinct SIDs of each prompt, drawn one after the other from the model's distribution over
    the SIDs that are left.

    At each level, the distribution is that of the tokens that may follow, sharpened by the
    temperature. Stochastic beam search (Kool et al., 2019, “Stochastic Beams and Where to Find
    Them”) perturbs the log-probability of every SID by Gumbel noise and keeps the highest, of which
    the search sees no more than beams of `count` prefixes.

    Args:
        trie: on the device of the decoder.
        state: what `decoder.start` returned.
        count: SIDs drawn at the most.
        draws: one generator for each prompt, so that a draw does not depend on the batch.
        hint: how the SIDs that may be drawn begin.

    Returns:
        Numbers of SIDs, the most probable first, `(prompts, count)`; -1 where there are no more.
    """
    users, device = len(draws), decoder.device
    nodes = torch.zeros(users, 1, dtype=torch.long, device=device)
    likely = torch.zeros(users, 1, device=device)
    perturbed = torch.zeros(users, 1, device=device)
    whole = _Whole.none(users, device)
    for depth, level in enumerate(trie.levels):
        children, columns = level.expand(nodes)
        if hint:
            away = hint.forbids(level, depth, children.flatten(1)).view_as(children)
            children = children.masked_fill(away, NOTHING)
        logits = decoder.head.logits(state.hidden, level.tokens).view(*nodes.shape, -1)
        logits = (logits.gather(-1, columns) / temperature).masked_fill(children < 0, NEVER)
        logs = (likely[..., None] + logits.log_softmax(-1)).masked_fill(children < 0, NEVER)
        shape = tuple(logs.shape[1:])
        noise = np.stack([draw.gumbel(size=shape).astype(np.float32) for draw in draws])
        scores = _conditioned(logs + torch.from_numpy(noise).to(device), perturbed)
        children, columns = children.flatten(1), columns.flatten(1)
        logs, scores = logs.flatten(1), scores.flatten(1)
        sids = torch.where(children >= 0, level.sids[children], NOTHING)
        if level.complete:
            whole = whole.best_of(sids, logs, scores.masked_fill(sids < 0, NEVER), count)
        if not level.open:
            break
        going = scores.masked_fill(sids >= 0, NEVER)
        chosen = going.topk(min(count, going.shape[1]), dim=1).indices
        perturbed, likely = going.gather(1, chosen), logs.gather(1, chosen)
        nodes = children.gather(1, chosen).clamp(min=0)
        # A beam that stands for nothing goes on as one that cannot be chosen again.
        likely = likely.masked_fill(perturbed == NEVER, NEVER)
        tokens = level.tokens[columns.gather(1, chosen)]
        state = decoder.extend(state, chosen // level.fan_out, tokens)
    order = whole.logs.argsort(dim=1, descending=True, stable=True)
    return whole.sids.gather(1, order)


def _conditioned(scores: Tensor, parents: Tensor) -> Tensor:
    """Perturbed log-probabilities of children, shifted so that the highest of a parent's children
    equals the parent's own (Kool et al., appendix B.3).

    Args:
        scores: `(users, beams, fan-out)`, log-probabilities plus Gumbel noise.
        parents: `(users, beams)`.
    """
    highest = scores.amax(-1, keepdim=True)
    below = scores - highest
    # log(1 - exp(below)), which is minus infinity for the highest itself.
    gap = torch.log(-torch.expm1(below))
    parent = parents[..., None]
    shift = parent - scores + gap
    moved = parent - shift.clamp(min=0) - torch.log1p(torch.exp(-shift.abs()))
    nothing = (scores == NEVER) | (parent == NEVER)
    return moved.masked_fill(nothing | moved.isnan(), NEVER)


class _Whole:
    """Whole SIDs so far, those with the highest perturbed scores; `(users, SIDs)` each."""

    def __init__(self, sids: Tensor, logs: Tensor, scores: Tensor) -> None:
        self.sids, self.logs, self.scores = sids, logs, scores

    @classmethod
    def none(cls, users: int, device: torch.device) -> _Whole:
        """Nothing yet."""
        empty = torch.zeros(users, 0, device=device)
        return cls(empty.long(), empty, empty)

    def best_of(self, sids: Tensor, logs: Tensor, scores: Tensor, count: int) -> _Whole:
        """The best of these and of more."""
        scores = torch.cat([self.scores, scores], dim=1)
        best = scores.topk(min(count, scores.shape[1]), dim=1)
        sids = torch.cat([self.sids, sids], dim=1).gather(1, best.indices)
        logs = torch.cat([self.logs, logs], dim=1).gather(1, best.indices)
        nothing = best.values == NEVER
        return _Whole(
            sids.masked_fill(nothing, NOTHING), logs.masked_fill(nothing, NEVER), best.values
        )
