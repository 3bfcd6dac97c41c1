"""What is asked of a served model, and its answers to many queries at once."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sidtune.base.errors import UserError, some
from sidtune.base.ragged import Ragged
from sidtune.config.search import RankOptions
from sidtune.decoding.answers import known_items
from sidtune.decoding.recommender import Recommendation, Recommender

# Lists of candidates whose tries are kept.
REMEMBERED = 8


@dataclass(frozen=True)
class Query:
    """One history that wants a list.

    Args:
        history: item ids, oldest first.
        k: items wanted.
        exclude_history: never return an item of the history.
        candidates: ids of the only items that may be returned; None for all.
        skip_unknown: pass over items of the history that the catalogue does not have, in place of
            refusing the query.
        rank: use the ranker, where there is one.
    """

    history: tuple[str, ...]
    k: int = 10
    exclude_history: bool = False
    candidates: frozenset[str] | None = None
    skip_unknown: bool = False
    rank: bool = True


@dataclass(frozen=True)
class Reply:
    """The answer to a query.

    Args:
        items: best first; empty if no item of the history is known.
        unknown: items of the history that were passed over.
        unknown_candidates: candidates that the catalogue does not have, sorted.
        generation: which model answered; counts up with each reload.
    """

    items: list[Recommendation]
    unknown: list[str] = field(default_factory=list)
    unknown_candidates: list[str] = field(default_factory=list)
    generation: int = 1


# Queries that one call of the recommender answers.
Kind = tuple[bool, frozenset[str] | None, bool]


class Served:
    """A loaded model as it is served.

    Args:
        recommender: the model.
        asked: options of the search; `exclude_history` comes from each query.
        options: the same with a number of beams, which may be the ranker's.
        generation: 1 for the first model, and one more with each reload.
    """

    def __init__(self, recommender: Recommender, asked: RankOptions, generation: int = 1) -> None:
        self.recommender, self.asked, self.generation = recommender, asked, generation
        self.options = recommender.settled(asked)
        self._lock = threading.Lock()
        self._restricted: OrderedDict[
            tuple[frozenset[str] | None, bool], tuple[Recommender, list[str]]
        ] = OrderedDict()

    def answer(self, queries: Sequence[Query]) -> list[Reply | UserError]:
        """An answer for each query, or what is wrong with it.

        The answers are those of `Recommender.answer`, up to rounding: queries of one kind share
        their forward passes.
        """
        located = self.recommender.located([query.history for query in queries])
        found: dict[int, Reply | UserError] = {}
        kinds: dict[Kind, list[int]] = defaultdict(list)
        for row, query in enumerate(queries):
            unknown = _unknown(query, located[row])
            if unknown and not query.skip_unknown:
                found[row] = UserError(
                    f"not in the catalogue: {some([repr(item) for item in unknown])}",
                    "Remove these items, or set skip_unknown to true.",
                )
            elif (located[row] < 0).all():
                found[row] = Reply([], unknown, generation=self.generation)
            else:
                kinds[query.exclude_history, query.candidates, query.rank].append(row)
        for kind, rows in kinds.items():
            found |= self._answer_kind(kind, queries, rows, located)
        return [found[row] for row in range(len(queries))]

    def restricted(
        self, candidates: frozenset[str] | None, rank: bool = True
    ) -> tuple[Recommender, list[str]]:
        """The recommender of these candidates, and which of them the catalogue does not have.

        Raises:
            UserError: if it has none of them.
        """
        key = candidates, rank
        with self._lock:
            if key not in self._restricted:
                self._restricted[key] = self._restrict(candidates, rank)
                if len(self._restricted) > REMEMBERED:
                    self._restricted.popitem(last=False)
            self._restricted.move_to_end(key)
            return self._restricted[key]

    def _answer_kind(
        self, kind: Kind, queries: Sequence[Query], rows: list[int], located: Ragged
    ) -> dict[int, Reply | UserError]:
        exclude_history, candidates, rank = kind
        try:
            recommender, unknown_candidates = self.restricted(candidates, rank)
        except UserError as error:
            return dict.fromkeys(rows, error)
        asked = located.take(np.array(rows))
        options = replace(self.options, exclude_history=exclude_history)
        most = max(queries[row].k for row in rows)
        lists = recommender.answer(asked.keep(asked.values >= 0), most, options)
        found: dict[int, Reply | UserError] = {}
        for row, items in zip(rows, lists, strict=True):
            found[row] = (
                UserError(
                    "the prompt of this history is too long for the model: it exceeds"
                    f" cutoff_len={recommender.bundle.cutoff_len}",
                    "Give a shorter history.",
                )
                if items is None
                else Reply(
                    items[: queries[row].k],
                    _unknown(queries[row], located[row]),
                    unknown_candidates,
                    self.generation,
                )
            )
        return found

    def _restrict(
        self, candidates: frozenset[str] | None, rank: bool
    ) -> tuple[Recommender, list[str]]:
        recommender = self.recommender if rank else self.recommender.unranked()
        if candidates is None:
            return recommender, []
        catalogue = self.recommender.bundle.catalogue
        allowed, unknown = known_items(sorted(candidates), catalogue)
        return recommender.allowing(allowed), unknown


def _unknown(query: Query, positions: np.ndarray) -> list[str]:
    """Items that the catalogue does not have, each once."""
    known = zip(query.history, positions, strict=True)
    return list(dict.fromkeys(item for item, at in known if at < 0))
