"""Rollouts: the answers of the current model to prompts, and their rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidtune.config.rl import RewardName
from sidtune.decoding.decoder import Decoder
from sidtune.decoding.search import Search
from sidtune.reinforcement.prompt_corpus import PromptCorpus
from sidtune.reinforcement.rewards import mixed
from sidtune.reinforcement.rewards.base import Floats, Groups, Shop


@dataclass(frozen=True)
class Rollout:
    """Answers to some prompts.

    Args:
        prompts: token ids of each.
        tasks: `(prompts,)`.
        groups: the answers.
        rewards: `(prompts, group)`.
        entropy: `(prompts,)`, of the first SID token among those that the trie allows, in nats.
    """

    prompts: list[NDArray[np.int32]]
    tasks: NDArray[np.int64]
    groups: Groups
    rewards: Floats
    entropy: NDArray[np.float64]


@dataclass(frozen=True)
class Rollouts:
    """Asks the model for groups of answers.

    Args:
        corpus: the prompts.
        search: as wide as a group.
        rewards: weights by name.
        shop: what the rewards know.
    """

    corpus: PromptCorpus
    search: Search
    rewards: Mapping[RewardName, float]
    shop: Shop

    @torch.no_grad()
    def of(self, decoder: Decoder[Any], examples: NDArray[np.int64]) -> Rollout:
        """The answers to some entries of the corpus.

        Args:
            decoder: of the model in evaluation mode.
        """
        prompts = [self.corpus.prompt(int(example)) for example in examples]
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        search = Search(
            self.search.trie.to(decoder.device),
            self.search.beams,
            self.search.normalize,
            self.search.max_tokens,
        )
        sids = np.full((len(prompts), search.beams), -1, np.int64)
        entropy = np.zeros(len(prompts))
        for batch in search.batches(decoder, lengths):
            state = decoder.start([prompts[row] for row in batch])
            level = search.trie.levels[0]
            allowed = decoder.head.logits(state.hidden, level.tokens).log_softmax(-1)
            entropy[batch] = -(allowed.exp() * allowed).sum(-1).cpu().numpy()
            found, _ = search.go_on(decoder, state)
            sids[batch, : found.shape[1]] = found.cpu().numpy()
        groups = Groups(sids, self.corpus.targets[examples])
        rewards = mixed(self.rewards, groups, self.shop)
        return Rollout(prompts, self.corpus.task_of[examples], groups, rewards, entropy)
