"""Groups of answers as examples that lie in one prefix tree, with one label for each of its edges.

Answers of a group that begin alike share labels as they share tokens: what the objective asks of a
token is summed over the answers that hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidtune.batching.layouts import Example, Layout, MicroBatch
from sidtune.reinforcement.paths import Paths
from sidtune.reinforcement.policy_loss import KL, LIKELIHOOD, LOSS, OLD, REFERENCE, REWARD, TERMS


@dataclass(frozen=True)
class Wanted:
    """What the objective asks of answers, per token of each; `(answers,)` each.

    Args:
        prompt: which prompt is answered, ascending.
        sid: number of the SID; a prompt may have one answer twice.
        advantage: factor of the probability ratio.
        kl: factor of the divergence from the reference.
        likelihood: factor of the log-probability.
    """

    prompt: NDArray[np.int64]
    sid: NDArray[np.int64]
    advantage: NDArray[np.float64]
    kl: NDArray[np.float64]
    likelihood: NDArray[np.float64]


class Placed(NamedTuple):
    """A micro-batch of edges.

    Args:
        batch: without terms.
        labels: which of the edges its labels are, `(labels,)`.
    """

    batch: MicroBatch
    labels: NDArray[np.int64]

    def told(self, terms: NDArray[np.float32]) -> MicroBatch:
        """The micro-batch with its share of the terms of all edges."""
        return replace(self.batch, terms=terms[self.labels])


@dataclass(frozen=True)
class Edges:
    """Examples whose labels are the edges of the prompts' trees, each edge once.

    Args:
        examples: prompt and answer; numbered in place of their task.
        first: `(examples,)`, the first label of each among all labels.
        terms: `(labels, TERMS)`.
        nodes: `(labels,)`, the SID prefix that each label continues.
        task: `(examples,)`.
    """

    examples: list[Example]
    first: NDArray[np.int64]
    terms: NDArray[np.float32]
    nodes: NDArray[np.int64]
    task: NDArray[np.int64]

    def laid_out(self, layout: Layout) -> list[Placed]:
        """The examples in micro-batches; with SID prefixes if the layout has them."""
        batches = replace(layout, prefixes=None).micro_batches(self.examples)
        return [self._placed(batch, layout.prefixes is not None) for batch in batches]

    def _placed(self, batch: MicroBatch, looks_at_prefixes: bool) -> Placed:
        # Labels of an example stand together and in order.
        opens = np.flatnonzero(np.diff(batch.tasks, prepend=-1))
        within = np.arange(len(batch.tasks)) - np.repeat(
            opens, np.diff(np.append(opens, len(batch.tasks)))
        )
        labels = self.first[batch.tasks] + within
        nodes = self.nodes[labels] if looks_at_prefixes else None
        return Placed(replace(batch, tasks=self.task[batch.tasks], nodes=nodes), labels)


def edges_of(
    prompts: Sequence[NDArray[np.int32]],
    tasks: NDArray[np.int64],
    wanted: Wanted,
    paths: Paths,
    level_weights: Sequence[float] = (),
) -> Edges:
    """The trees of some prompts and their answers.

    Args:
        prompts: token ids.
        tasks: `(prompts,)`.
        level_weights: factors of the advantage by level, from the first; 1 for the others.
    """
    # SIDs are numbered in the order of their tokens, so neighbours share the most.
    order = np.lexsort((wanted.sid, wanted.prompt))
    prompt, sid = wanted.prompt[order], wanted.sid[order]
    tokens, lengths = paths.tokens[sid], paths.lengths[sid]
    shared = _shared(prompt, tokens)
    column = np.arange(tokens.shape[1])
    inside = column < lengths[:, None]
    new = inside & (column >= shared[:, None])
    number = np.cumsum(new).reshape(new.shape) - 1
    # The edge of a shared token is the latest one in its column: its prompt's first answer has
    # edges in all of its own columns.
    edge = np.maximum.accumulate(np.where(new, number, -1), axis=0)
    terms = np.zeros((int(new.sum()), TERMS))
    terms[:, [REFERENCE, OLD]] = np.nan
    levels = np.ones(tokens.shape[1])
    levels[: len(level_weights)] = level_weights
    advantage = wanted.advantage[order][:, None] * levels
    factors = {
        REWARD: np.maximum(advantage, 0),
        LOSS: np.minimum(advantage, 0),
        KL: wanted.kl[order][:, None],
        LIKELIHOOD: wanted.likelihood[order][:, None],
    }
    for term, factor in factors.items():
        np.add.at(terms[:, term], edge[inside], np.broadcast_to(factor, new.shape)[inside])
    has_labels = np.flatnonzero(new.any(axis=1))
    examples = []
    for place, answer in enumerate(has_labels.tolist()):
        ids = prompts[prompt[answer]]
        own = tokens[answer, : lengths[answer]].astype(np.int32)
        span = np.array([[len(ids) + shared[answer], len(ids) + len(own)]], np.int32)
        examples.append((np.concatenate([ids, own]), span, place))
    counts = new.sum(axis=1)[has_labels]
    return Edges(
        examples,
        np.cumsum(counts) - counts,
        terms.astype(np.float32),
        paths.nodes[sid][new],
        tasks[prompt[has_labels]],
    )


def _shared(prompt: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tokens each answer shares with the one before it, `(answers,)`; none with another
    prompt's.
    """
    same = np.cumprod((tokens[1:] == tokens[:-1]) & (tokens[1:] >= 0), axis=1).sum(axis=1)
    return np.append(0, np.where(prompt[1:] == prompt[:-1], same, 0))
