"""Constrained beam search: the best SIDs of the catalogue for many prompts at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sidtune.base.ragged import Ragged
from sidtune.config.search import Normalize
from sidtune.decoding.decoder import Decoder, State
from sidtune.decoding.token_scores import Head
from sidtune.decoding.trie import NOTHING, Hint, Level, Trie

NEVER = -torch.inf
# Numbers of candidates and logits held at once, besides the tokens.
MOST_VALUES = 1 << 25


@dataclass(frozen=True)
class Search:
    """How SIDs are looked for.

    The score of a SID is the sum of the log-probabilities of its tokens, plus that of the closing
    token where it is the beginning of another; it is not divided by length. At each level the best
    `beams` candidates are looked at: those that are whole SIDs are put aside, and the best `beams`
    of the others go on.

    Args:
        trie: the SIDs that may be answered.
        beams: width of the search, and SIDs returned at the most.
        normalize: probabilities over the full vocabulary, or over the tokens that the trie allows.
        max_tokens: of one forward pass; bounds memory, changes nothing but rounding.
    """

    trie: Trie
    beams: int
    normalize: Normalize
    max_tokens: int

    def batches(self, decoder: Decoder[Any], lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Rows that are searched together, longest prompts first, `(rows,)` each."""
        order = np.argsort(-lengths, kind="stable")
        batches, start = [], 0
        while start < len(order):
            size = self._users(decoder, int(lengths[order[start]]))
            batches.append(order[start : start + size])
            start += size
        return batches

    @torch.no_grad()
    def run(
        self, decoder: Decoder[Any], prompts: Ragged, excluded: Ragged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Search for all prompts in one batch.

        Args:
            decoder: on the device of the trie.
            excluded: distinct SID numbers per prompt that may not be returned; the search treats
                them as absent from the trie, but they keep their share of the probability.

        Returns:
            Numbers of SIDs, best first, and their scores, both `(prompts, at most beams)`; -1 and
            minus infinity where there are no more.
        """
        return self.go_on(
            decoder, decoder.start([prompts[row] for row in range(len(prompts))]), excluded
        )

    @torch.no_grad()
    def go_on(
        self,
        decoder: Decoder[Any],
        state: State,
        excluded: Ragged | None = None,
        hint: Hint | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `run`, from the state that `decoder.start` returned for the prompts.

        Args:
            hint: how the SIDs that may be returned begin.
        """
        users = len(state.lengths)
        found = _Found.none(users, decoder.device)
        excluded_sids = None
        if excluded is not None:
            width = int(excluded.lengths.max(initial=1))
            excluded_sids = torch.from_numpy(excluded.rectangle(width)).to(decoder.device)
        nodes = torch.zeros(users, 1, dtype=torch.long, device=decoder.device)
        scores = torch.zeros(users, 1, device=decoder.device)
        for depth, level in enumerate(self.trie.levels):
            children, columns, candidates = self._candidates(
                decoder.head, level, state.hidden, nodes, scores
            )
            if hint:
                candidates = candidates.masked_fill(hint.forbids(level, depth, children), NEVER)
            if excluded_sids is not None:
                candidates = _without(candidates, children, level.exhausted(excluded_sids))
            sids = torch.where(children >= 0, level.sids[children], NOTHING)
            if level.complete:
                found = found.best_of(sids, candidates, self.beams)
            if not level.open:
                break
            scores, chosen = _best(candidates.masked_fill(sids >= 0, NEVER), self.beams)
            nodes = children.gather(1, chosen).clamp(min=0)
            tokens = level.tokens[columns.gather(1, chosen)]
            state = decoder.extend(state, chosen // level.fan_out, tokens)
        return found.sids, found.scores

    def _candidates(
        self, head: Head, level: Level, hidden: Tensor, nodes: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Children, their columns and their scores, each `(users, beams × fan-out)`."""
        children, columns = level.expand(nodes)
        logits = head.logits(hidden, level.tokens).view(*nodes.shape, -1).gather(-1, columns)
        logits = logits.masked_fill(children < 0, NEVER)
        normaliser = (
            head.normaliser(hidden).view(nodes.shape)
            if self.normalize == "full"
            else logits.logsumexp(-1)
        )
        # Where no child has a probability above zero, logits and normaliser are both minus
        # infinity.
        summed = (scores[..., None] + logits - normaliser[..., None]).masked_fill(
            logits == NEVER, NEVER
        )
        return children.flatten(1), columns.flatten(1), summed.flatten(1)

    def _users(self, decoder: Decoder[Any], prompt: int) -> int:
        # At the first levels there may be fewer nodes than beams.
        beams = [min(self.beams, len(level.starts) - 1) for level in self.trie.levels]
        logits = 0 if decoder.head.ends_model else decoder.head.vocabulary
        widths = [max(logits, level.fan_out + len(level.tokens)) for level in self.trie.levels]
        by_values = MOST_VALUES // max(
            count * width for count, width in zip(beams, widths, strict=True)
        )
        return max(
            1,
            min(
                self.max_tokens // decoder.tokens(prompt, self.beams, len(self.trie.levels)),
                by_values,
            ),
        )


@dataclass(frozen=True)
class _Found:
    """Whole SIDs so far, best first: numbers and scores, `(users, SIDs)`."""

    sids: Tensor
    scores: Tensor

    @classmethod
    def none(cls, users: int, device: torch.device) -> _Found:
        """Nothing yet."""
        return cls(
            torch.zeros(users, 0, dtype=torch.long, device=device),
            torch.zeros(users, 0, device=device),
        )

    def best_of(self, sids: Tensor, candidates: Tensor, beams: int) -> _Found:
        """The best SIDs, with those among the best candidates of a level, `(users, candidates)`."""
        scores, chosen = _best(candidates, beams)
        new = sids.gather(1, chosen)
        scores = torch.cat([self.scores, scores.masked_fill(new < 0, NEVER)], dim=1)
        scores, kept = _best(scores, beams)
        sids = torch.cat([self.sids, new], dim=1).gather(1, kept)
        return _Found(sids.masked_fill(scores == NEVER, NOTHING), scores)


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores of each row and their places, best first."""
    best = scores.topk(min(count, scores.shape[1]), dim=1)
    return best.values, best.indices


def _without(candidates: Tensor, children: Tensor, exhausted: Tensor) -> Tensor:
    """Scores of candidates, minus infinity for exhausted children."""
    ordered = exhausted.sort(dim=1).values
    place = torch.searchsorted(ordered, children).clamp(max=ordered.shape[1] - 1)
    return candidates.masked_fill(ordered.gather(1, place) == children, NEVER)
