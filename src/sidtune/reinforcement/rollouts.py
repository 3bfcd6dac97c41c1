"""Rollouts: the answers of the current model to prompts, and their rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidtune.config.rl import RlConfig
from sidtune.config.search import MAX_TOKENS, Normalize
from sidtune.decoding.decoder import Decoder, State
from sidtune.decoding.search import Search
from sidtune.decoding.trie import NOTHING, Hint, Trie
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
        sids, entropy = self._answers(decoder, examples, number)
        if hint := self.options.hint:
            missing = np.flatnonzero((sids != self.corpus.targets[examples][:, None]).all(axis=1))
            sids[missing], _ = self._answers(decoder, examples[missing], number, hint)
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
        self, decoder: Decoder[Any], examples: NDArray[np.int64], number: int, hint: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers of SIDs, as in `Groups`, and entropies, as in `Rollout`.

        Args:
            hint: so many first tokens of the target are given.
        """
        options, trie = self.options, self.trie.to(decoder.device)
        prompts = [self.corpus.prompt(int(example)) for example in examples]
        normalize: Normalize = "full" if options.over == "vocabulary" else "trie"
        search = Search(trie, options.group, normalize, MAX_TOKENS)
        sids = np.full((len(examples), options.group), NOTHING, np.int64)
        entropy = np.zeros(len(examples))
        for batch in search.batches(decoder, np.array(list(map(len, prompts)), np.int64)):
            targets = torch.from_numpy(self.corpus.targets[examples[batch]]).to(decoder.device)
            given = Hint(targets, hint) if hint else None
            state = decoder.start([prompts[row] for row in batch])
            entropy[batch] = _entropy(decoder, state, trie)
            if options.rollout == "beams":
                found, _ = search.go_on(decoder, state, hint=given)
            else:
                draws = self._draws(examples[batch], number, hint)
                temperature = options.temperature
                found = sample(trie, decoder, state, options.group, temperature, draws, given)
            sids[batch, : found.shape[1]] = found.cpu().numpy()
        return sids, entropy

    def _draws(
        self, examples: NDArray[np.int64], number: int, hint: int
    ) -> list[np.random.Generator]:
        # Groups that are asked again draw anew.
        again = [hint] if hint else []
        seeds = [[self.seed, number, int(example), *again] for example in examples]
        return [np.random.default_rng(seed) for seed in seeds]


def _entropy(decoder: Decoder[Any], state: State, trie: Trie) -> NDArray[np.float64]:
    """Entropy of the first SID token, `(prompts,)`."""
    logs = decoder.head.logits(state.hidden, trie.levels[0].tokens).log_softmax(-1)
    # A token that the model masks has a probability of zero, which counts for nothing.
    entropy = -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)
    found: NDArray[np.float64] = entropy.cpu().double().numpy()
    return found
