"""Slow, obvious references for constrained decoding: one plain forward pass for every prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import torch
from transformers import PreTrainedModel

Path = tuple[int, ...]


def closed(sids: Sequence[Path], closing: int) -> list[Path]:
    """Every SID's path: with the closing token where it is a prefix of another."""
    begins = {a for a, b in combinations(sorted(sids), 2) if b[: len(a)] == a}
    return [(*sid, closing) if sid in begins else sid for sid in sids]


class Reference:
    """Next-token log-probabilities along the paths of a few SIDs."""

    def __init__(
        self, model: PreTrainedModel, prompt: Sequence[int], paths: Sequence[Path], normalize: str
    ) -> None:
        self.model, self.prompt, self.paths, self.normalize = (
            model,
            list(prompt),
            list(paths),
            normalize,
        )
        self.seen: dict[Path, torch.Tensor] = {}

    def children(self, prefix: Path) -> list[int]:
        """Tokens that may follow."""
        n = len(prefix)
        return sorted({path[n] for path in self.paths if path[:n] == prefix and len(path) > n})

    @torch.no_grad()
    def log_probability(self, prefix: Path, token: int) -> float:
        """Of one token behind the prompt and a prefix."""
        if prefix not in self.seen:
            # Without a cache, which several recurrent models cannot make.
            ids = torch.tensor([[*self.prompt, *prefix]])
            self.seen[prefix] = self.model(ids, use_cache=False).logits[0, -1].double()
        logits = self.seen[prefix]
        if self.normalize == "full":
            return float(logits.log_softmax(-1)[token])
        allowed = self.children(prefix)
        return float(logits[allowed].log_softmax(-1)[allowed.index(token)])

    def score(self, path: Path) -> float:
        """The sum over a path."""
        return sum(self.log_probability(path[:at], path[at]) for at in range(len(path)))

    def best(self, among: Callable[[int], bool] = lambda _: True) -> list[tuple[int, float]]:
        """Every path's number and score, best first."""
        scored = [
            (number, self.score(path)) for number, path in enumerate(self.paths) if among(number)
        ]
        return sorted(scored, key=lambda entry: -entry[1])

    def beam_search(self, beams: int) -> list[tuple[int, float]]:
        """As written in textbooks: whole paths among the best candidates are put aside, the best
        others go on.
        """
        number = {path: index for index, path in enumerate(self.paths)}
        running: list[tuple[Path, float]] = [((), 0.0)]
        finished: list[tuple[int, float]] = []
        while running:
            candidates = [
                ((*prefix, token), score + self.log_probability(prefix, token))
                for prefix, score in running
                for token in self.children(prefix)
            ]
            candidates.sort(key=lambda entry: -entry[1])
            finished += [
                (number[path], score) for path, score in candidates[:beams] if path in number
            ]
            running = [entry for entry in candidates if entry[0] not in number][:beams]
        return sorted(finished, key=lambda entry: -entry[1])[:beams]


def random_sids(
    seed: int, depths: Sequence[int], count: int, width: int = 4, first: int = 300
) -> list[Path]:
    """Distinct SIDs of the given depths; every level has `width` tokens of its own, ids from
    `first`.
    """
    random = np.random.default_rng(seed)
    drawn = {
        tuple(
            first + level * width + int(random.integers(width))
            for level in range(int(random.choice(depths)))
        )
        for _ in range(count)
    }
    return sorted(drawn)
