"""Simple baselines: most popular, repeat last, repeat often, co-occurrence, item transitions, text
neighbours, and transitions with text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, repeat, row_of
from sidtune.base.terminal import progress
from sidtune.data.popularity import popularity, tie_break
from sidtune.data.rows import Rows
from sidtune.metrics.ranks import Ranking
from sidtune.opponents.blend import Blend
from sidtune.opponents.popular import Popular
from sidtune.ranker.pairs import highest
from sidtune.ranker.sources.co_occurrence import DECAY, conditional
from sidtune.ranker.sources.history import Recurrence
from sidtune.ranker.sources.transitions import (
    Transitions,
    TransitionSettings,
    history_weights,
    tuned_transitions,
)
from sidtune.ranker.sources.vectors import Neighbours

CHUNK_SCORES = 4_000_000

# Histories to scores, `(rows, items)`; higher is better.
Scorer = Callable[[Ragged], NDArray[np.float64]]


@dataclass(frozen=True)
class Baselines:
    """The simple baselines, counted on training rows, with settings chosen on validation rows.

    Args:
        users: `(items,)`, training users of each item.
        together: P(j | i), `(items, items)`: of the users of item i, the share that also has j.
        direct: P(j | i), `(items, items)`: of the items that came directly after i, the share of j.
        transitions: which items followed which, with the settings that were chosen.
        recurrence: how a user's earlier items are put in order.
        blend: transitions and text neighbours; None without texts.
    """

    users: NDArray[np.int64]
    together: sp.csr_array
    direct: sp.csr_array
    transitions: Transitions
    recurrence: Recurrence
    blend: Blend | None = None

    @classmethod
    def fit(
        cls,
        train: Rows,
        valid: Rows | None,
        items: int,
        *,
        texts: NDArray[np.float32] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        exclude_history: bool = False,
    ) -> Baselines:
        """Count and choose.

        Args:
            train: rows that everything is counted on.
            valid: rows that settings are chosen on, if there are any.
            items: number of items.
            texts: vectors of the items' texts, `(items, d)`.
            allowed, exclude_history: as in `rank`.
        """
        transitions = tuned_transitions(
            train, valid, items, allowed=allowed, exclude_history=exclude_history
        )
        blend = None
        if texts is not None:
            blend = Blend.tuned(transitions, Neighbours.tuned(texts, valid), valid)
        direct = Transitions.count(train, items, TransitionSettings()).matrix
        recurrence = Recurrence.tuned(valid, items)
        together = conditional(train, items)
        return cls(popularity(train, items), together, direct, transitions, recurrence, blend)

    def rank(
        self,
        history: Ragged,
        target: NDArray[np.integer],
        sid_of: NDArray[np.integer],
        depth: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        exclude_history: bool = False,
    ) -> dict[str, Ranking]:
        """Rank the whole catalogue for every row with each baseline.

        Ties go to the item with more training users, then to the one that comes first in the
        catalogue. A SID's score is that of its best item. Ranks refer to the whole ranking and may
        exceed `depth`. A target that may not be listed has rank 0; so does its SID, unless another
        of its items may be listed.

        Args:
            history: per row to rank, catalogue positions, oldest first.
            target: `(rows,)`, catalogue positions.
            sid_of: `(items,)`, a number for each item's SID; items that share one have the same
                number.
            depth: length of the lists.
            allowed: `(items,)`, which items may be listed; all by default.
            exclude_history: list no item of the row's own history; what repeats then equals most
                popular.
        """
        by_popularity = Popular.of(self.users, sid_of, depth, allowed)
        listing = Listing.of(
            self.users, sid_of, depth, allowed=allowed, exclude_history=exclude_history
        )
        nothing = repeat([], len(history))
        hidden = history if exclude_history else nothing
        first = {
            "most popular": nothing,
            "repeat last": history.reversed(),
            "repeat often": self.recurrence.order(history, len(sid_of)),
        }
        rankings = {
            name: by_popularity.rank_rows(name, front, hidden, target)
            for name, front in first.items()
        }
        for name, scorer in self._scorers().items():
            rankings[name] = rank_rows(name, scorer, history, target, listing)
        return rankings

    def _scorers(self) -> dict[str, Scorer]:
        found: dict[str, Scorer] = {
            "co-occurrence": partial(_co_occurrence, conditional=self.together),
            "transitions": partial(_following, transitions=self.transitions),
        }
        if self.blend:
            found["text neighbours"] = partial(_near, neighbours=self.blend.neighbours)
            found["transitions and text"] = self.blend.scores
        return found

    def as_json(self) -> dict[str, Any]:
        """The settings that were chosen."""
        settings: dict[str, Any] = {
            "repeat often": asdict(self.recurrence),
            "transitions": asdict(self.transitions.settings),
        }
        if self.blend:
            settings["text neighbours"] = {"decay": self.blend.neighbours.decay}
            settings["transitions and text"] = {
                "weight": self.blend.weight,
                "temperature": self.blend.temperature,
            }
        return settings


@dataclass(frozen=True)
class _Sids:
    """Which items share a SID.

    Args:
        column: `(items,)`, the SID of each item, numbered from 0 without gaps.
        order: `(items,)`, catalogue positions, those of one SID next to each other.
        starts: `(SIDs,)`, where each SID begins in `order`.
    """

    column: NDArray[np.int64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, sid_of: NDArray[np.integer]) -> _Sids:
        _, column, counts = np.unique(sid_of, return_inverse=True, return_counts=True)
        return cls(column, np.argsort(column, kind="stable"), np.cumsum(counts) - counts)

    def best(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The score of each SID's best item: `(rows, items)` to `(rows, SIDs)`."""
        best: NDArray[np.float64] = np.maximum.reduceat(scores[:, self.order], self.starts, axis=1)
        return best


@dataclass(frozen=True)
class Listing:
    """Turns the scores of any baseline into rankings; arguments as in `Baselines.rank`."""

    tie_break: NDArray[np.float64]
    sids: _Sids
    depth: int
    allowed: NDArray[np.bool_] | None
    exclude_history: bool

    @classmethod
    def of(
        cls,
        popular: NDArray[np.integer],
        sid_of: NDArray[np.integer],
        depth: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        exclude_history: bool = False,
    ) -> Listing:
        """A listing that breaks ties by `popular`, the number of training users per item,
        `(items,)`.
        """
        return cls(tie_break(popular), _Sids.of(sid_of), depth, allowed, exclude_history)

    def rank(
        self, scores: NDArray[np.float64], history: Ragged, target: NDArray[np.integer]
    ) -> Ranking:
        """Rank a chunk of rows; `scores`, `(rows, items)`, is overwritten."""
        scores += self.tie_break
        if self.allowed is not None:
            scores[:, ~self.allowed] = -np.inf
        if self.exclude_history:
            scores[row_of(history), history.values] = -np.inf
        sid_ranks = _places(self.sids.best(scores), self.sids.column[target])
        return Ranking(sid_ranks, _places(scores, target), _top(scores, self.depth))


def rank_rows(
    name: str, scorer: Scorer, history: Ragged, target: NDArray[np.integer], listing: Listing
) -> Ranking:
    """Rank all rows by one scorer, in chunks of about `CHUNK_SCORES` scores."""
    size = max(1, CHUNK_SCORES // len(listing.tie_break))
    chunks = np.split(np.arange(len(target)), range(size, len(target), size))
    histories = [history.take(rows) for rows in chunks]
    work = progress(
        list(zip(histories, chunks, strict=True)), name, len(target), lambda chunk: len(chunk[1])
    )
    parts = [listing.rank(scorer(past), past, target[rows]) for past, rows in work]
    return Ranking(
        np.concatenate([part.sid_ranks for part in parts]),
        np.concatenate([part.item_ranks for part in parts]),
        np.concatenate([part.items for part in parts]),
    )


def _co_occurrence(history: Ragged, conditional: sp.csr_array) -> NDArray[np.float64]:
    """The sum of P(j | i) over the history's items i, each with half the weight of the next one.

    HR@10 / NDCG@10 by item on the validation rows of amazon-industrial: this .128/.083. With one
    thing changed: all weights alike .116/.063, the last item alone .123/.082, plain counts instead
    of shares .131/.080, cosine (Sarwar et al., 2001) .107/.077, P(i | i) of 0 for items without
    users .125/.079, for all items .091/.061.
    """
    weights = history_weights(history, conditional.shape[0], DECAY)
    scores: NDArray[np.float64] = (weights @ conditional).toarray()
    return scores


def _following(history: Ragged, transitions: Transitions) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = transitions.scores(history).toarray()
    return scores


def _near(history: Ragged, neighbours: Neighbours) -> NDArray[np.float64]:
    return neighbours.scores(history).astype(np.float64)


def _places(scores: NDArray[np.float64], target: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rank of the target's score in its row, from 1, `(rows,)`; 0 for a target that may not be
    listed.
    """
    own = scores[np.arange(len(target)), target]
    places = 1 + np.count_nonzero(scores > own[:, None], axis=1)
    return np.where(np.isfinite(own), places, 0)


def _top(scores: NDArray[np.float64], depth: int) -> NDArray[np.int64]:
    """Items by descending score, `(rows, depth)`, padded with -1 where fewer may be listed."""
    k = min(depth, scores.shape[1])
    best = highest(scores, k)
    values = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-values, axis=1)
    listed = np.where(np.isfinite(values), best, -1)
    top = np.full((len(scores), depth), -1, np.int64)
    top[:, :k] = np.take_along_axis(listed, order, axis=1)
    return top
