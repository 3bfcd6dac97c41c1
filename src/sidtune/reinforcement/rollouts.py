"""Rollouts: the answers of the current model to prompts, and their rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sidtune.config.rl import RlConfig
from sidtune.config.search import MAX_TOKENS, Normalize
from sidtune.decoding.decoder import Decoder, State
from sidtune.decoding.search import Search
from sidtune.decoding.trie import Trie
from sidtune.reinforcement.prompt_corpus import PromptCorpus
from sidtune.reinforcement.rewards import mixed
from sidtune.reinforcement.rewards.base import Floats, Groups, Shop
from sidtune.reinforcement.sampling import sample


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
        trie: the SIDs that may be answered.
        options: how to ask.
        shop: what the rewards know.
        seed: of samples, besides the number of the rollout and that of the prompt.
    """

    corpus: PromptCorpus
    trie: Trie
    options: RlConfig
    shop: Shop
    seed: int

    @torch.no_grad()
    def ask(self, decoder: Decoder[Any], examples: NDArray[np.int64], number: int) -> Rollout:
        """The model's answers to some entries of the corpus.

        Args:
            decoder: of the model in evaluation mode.
            number: of the rollout.
        """
        prompts = [self.corpus.prompt(int(example)) for example in examples]
        normalize: Normalize = "full" if self.options.over == "vocabulary" else "trie"
        trie = self.trie.to(decoder.device)
        search = Search(trie, self.options.group, normalize, MAX_TOKENS)
        sids = np.full((len(prompts), self.options.group), -1, np.int64)
        entropy = np.zeros(len(prompts))
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        for batch in search.batches(decoder, lengths):
            state = decoder.start([prompts[row] for row in batch])
            entropy[batch] = _entropy(decoder, state, trie)
            found = self._answers(search, decoder, state, examples[batch], number)
            sids[batch, : found.shape[1]] = found.cpu().numpy()
        return self.judged(examples, sids, entropy)

    def judged(
        self,
        examples: NDArray[np.int64],
        sids: NDArray[np.int64],
        entropy: NDArray[np.float64],
    ) -> Rollout:
        """Answers with their rewards.

        Args:
            sids, entropy: of the model, as in `Groups` and `Rollout`.
        """
        targets = self.corpus.targets[examples]
        groups = Groups(sids, targets)
        if self.options.add_target:
            groups = groups.with_targets()
        prompts = [self.corpus.prompt(int(example)) for example in examples]
        return Rollout(
            prompts,
            self.corpus.task_of[examples],
            groups,
            mixed(self.options.weights, groups, self.shop),
            entropy,
        )

    def _answers(
        self,
        search: Search,
        decoder: Decoder[Any],
        state: State,
        examples: NDArray[np.int64],
        number: int,
    ) -> Tensor:
        """Numbers of SIDs, `(prompts, at most group)`."""
        if self.options.rollout == "beams":
            return search.go_on(decoder, state)[0]
        draws = [np.random.default_rng([self.seed, number, int(example)]) for example in examples]
        options = self.options
        return sample(search.trie, decoder, state, options.group, options.temperature, draws)


def _entropy(decoder: Decoder[Any], state: State, trie: Trie) -> NDArray[np.float64]:
    """Entropy of the first SID token, `(prompts,)`."""
    logs = decoder.head.logits(state.hidden, trie.levels[0].tokens).log_softmax(-1)
    # A token that the model masks has a probability of zero, which counts for nothing.
    entropy = -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)
    found: NDArray[np.float64] = entropy.cpu().double().numpy()
    return found
