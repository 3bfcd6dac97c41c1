"""The ranker: fitted on validation rows, and used for any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged, stack
from sidtune.base.terminal import counting, warn
from sidtune.config.rank import RankConfig, SourceName
from sidtune.config.search import BEAMS
from sidtune.data.rows import Rows
from sidtune.metrics.metrics import gains
from sidtune.ranker.pairs import Asked, Beams, Floats
from sidtune.ranker.scorers import INSTALL, Scorer, has_lightgbm, weights_for
from sidtune.ranker.sources import SOURCES
from sidtune.ranker.sources.base import Known, Source
from sidtune.ranker.table import Table, tables, tabulate

FOLDS, FOLD_SEED, CUTOFF = 3, 0, 10


@dataclass(frozen=True)
class Ranker:
    """Sources, and what puts their candidates in order.

    Args:
        sources: by name, in the order of `SOURCES`.
        scorer: reads the features of all of them.
        without_model: the same for all but the model; None where the model is no source, or no
            other can rank alone.
        beams: of the model's lists that it was fitted on.
        later: whether later events than the training rows are counted in, held-out ones with them.
    """

    sources: Mapping[SourceName, Source]
    scorer: Scorer
    without_model: Scorer | None = None
    beams: int = BEAMS
    later: bool = False

    @property
    def lists_of(self) -> int | None:
        """Beams of the model's lists that it reads; None where it reads none."""
        return self.beams if "model" in self.sources else None

    def rank(self, asked: Asked, depth: int, *, bar: bool = False) -> tuple[Ragged, Floats]:
        """The best items of each row, at most `depth`, and their scores, which compare within a
        row only.
        """
        items, scores, _ = self.rank_named(asked, depth, bar=bar)
        return items, scores

    def rank_named(
        self, asked: Asked, depth: int, *, bar: bool = False
    ) -> tuple[Ragged, Floats, list[tuple[SourceName, ...]]]:
        """What `rank` gives, and for each item of the lists the sources that named it."""
        lists: list[tuple[Ragged, Floats]] = []
        named: list[tuple[SourceName, ...]] = []
        for table in tables(self.sources, asked, bar):
            lists.append(table.pairs.best(self.scorer.scores(table), depth))
            named += table.sources_of(lists[-1][0])
        return *_stacked(lists), named

    def recounted(self, known: Known) -> Ranker:
        """With sources that are counted again on later events, too, or over more items; what puts
        candidates in order stays as it was learned.
        """
        found = {name: source.recount(known) for name, source in self.sources.items()}
        lost = [name for name, source in found.items() if source is None]
        if lost:
            raise UserError(
                f"nothing is known any more of {', '.join(lost)}, which the ranker reads",
                "Fit it anew: `sidtune rank` without --events.",
            )
        kept = {name: source for name, source in found.items() if source is not None}
        return replace(self, sources=kept, later=True)

    def rank_each(self, asked: Asked, depth: int) -> dict[str, tuple[Ragged, Floats]]:
        """What `rank` gives, as `ranker`, and as `ranker without model` what it would give if there
        were no model; the features are computed once.
        """
        lists: dict[str, list[tuple[Ragged, Floats]]] = defaultdict(list)
        for table in tables(self.sources, asked):
            lists["ranker"].append(table.pairs.best(self.scorer.scores(table), depth))
            if self.without_model:
                rest = table.without("model")
                best = rest.pairs.best(self.without_model.scores(rest), depth)
                lists["ranker without model"].append(best)
        return {name: _stacked(parts) for name, parts in lists.items()}


@dataclass(frozen=True)
class Fitted:
    """A ranker, and what its validation rows say.

    Args:
        ranker: fitted on all of them.
        ranks: by name, the place of each row's target in lists of a ranker that was fitted on other
            users: of the whole `ranker`, and of one without each source, where one of the others
            can rank alone; of the `model` alone, and
            of each other source that can rank alone.
        absent: sources that were asked for and have nothing to say.
    """

    ranker: Ranker
    ranks: dict[str, NDArray[np.int64]]
    absent: tuple[SourceName, ...]


def _stacked(parts: Sequence[tuple[Ragged, Floats]]) -> tuple[Ragged, Floats]:
    """The lists of all parts of the rows, and their scores."""
    items, scores = zip(*parts, strict=True)
    return stack(items), np.concatenate(scores)


def fit_sources(
    known: Known, names: Sequence[SourceName]
) -> tuple[dict[SourceName, Source], tuple[SourceName, ...]]:
    """The sources that have something to say, in the order of `SOURCES`, and those that have
    not.
    """
    made: dict[SourceName, Source] = {}
    absent: list[SourceName] = []
    for name, kind in SOURCES.items():
        if name in names:
            source = kind.fit(known)
            if source is None:
                absent.append(name)
            else:
                # As it will be read again.
                made[name] = kind.load(source.tensors())
    return made, tuple(absent)


def fit_ranker(known: Known, rows: Rows, beams: Beams | None, options: RankConfig) -> Fitted:
    """Fit sources on training rows and the ranker on `rows`.

    Args:
        rows: validation rows, in which no event of `known.train` is held out.
        beams: the model's lists for them; None without a model.

    Raises:
        UserError: where nothing is known of any source that can rank alone.
    """
    names = tuple(name for name in options.used if beams or name != "model")
    sources, absent = fit_sources(known, names)
    if not _can_rank(sources):
        raise UserError(
            f"rank.sources: nothing is known here of {', '.join(absent) or 'any'}, and no other"
            " of them ranks alone",
            "Add `model` or `transitions` to rank.sources, or set rank.fit: never.",
        )
    items = len(known.catalogue.ids)
    table = tabulate(sources, Asked(rows.history, items, beams))
    left_out = [name for name in table.sources if _can_rank({*table.owner} - {name})]
    alone = "model" in left_out
    folds = folds_of(rows)
    if not has_lightgbm():
        warn(f"LightGBM is not installed, so sources are mixed by weight; {INSTALL}")
    # Each is fitted for every fold, and at the end on all rows.
    fits = FOLDS * (1 + len(left_out)) + 1 + alone
    with counting("fitting the ranker", fits) as advance:

        def fit(part: Table) -> Scorer:
            made = Scorer.fit(part, rows.target, options)
            advance(1)
            return made

        weight, whole = _weighed(table, rows.target, folds, fit)
        ranks = {"ranker": whole}
        for name in left_out:
            part = table.without(name)
            (ranks[f"without {name}"],) = cross_fitted(part, rows.target, folds, fit, (weight,))
        without = fit(table.without("model")).weighing(weight) if alone else None
        ranker = Ranker(sources, fit(table).weighing(weight), without, options.beams)
    return Fitted(ranker, ranks | _ranks_alone(table, rows), absent)


def _can_rank(sources: Iterable[SourceName]) -> bool:
    """Whether one of them can rank without the others."""
    return any(SOURCES[name].mixes for name in sources)


def _ranks_alone(table: Table, rows: Rows) -> dict[str, NDArray[np.int64]]:
    """Of each source that can rank alone."""
    found: dict[str, NDArray[np.int64]] = {}
    for name in table.sources:
        if SOURCES[name].mixes:
            scores = np.nan_to_num(table.of(name)[:, 0], nan=-np.inf)
            listed = (table.named & np.uint16(1 << table.sources.index(name))) > 0
            ranks = table.pairs.ranks(np.where(listed, scores, -np.inf), rows.target)
            there = np.zeros(table.pairs.rows, bool)
            there[table.pairs.row[listed & table.pairs.hit(rows.target)]] = True
            found[name] = np.where(there, ranks, 0)
    return found


def _weighed(
    table: Table,
    target: NDArray[np.integer],
    folds: NDArray[np.int64],
    fit: Callable[[Table], Scorer],
) -> tuple[float, NDArray[np.int64]]:
    """The weight of the mixture with the best NDCG@10 on rows of other users, and the ranks of the
    targets with it.
    """
    weights = weights_for(len(target))
    tried = cross_fitted(table, target, folds, fit, weights)
    best = int(np.argmax([gains(ranks, CUTOFF).mean() for ranks in tried]))
    return weights[best], tried[best]


def cross_fitted(
    table: Table,
    target: NDArray[np.integer],
    folds: NDArray[np.int64],
    fit: Callable[[Table], Scorer],
    weights: Sequence[float],
) -> NDArray[np.int64]:
    """Ranks of targets by scorers that were fitted on the rows of other users, `(weights, rows)`.

    Args:
        folds: of `folds_of`.
        fit: learns from a part of the table.
        weights: of the mixture.
    """
    ranks = np.zeros((len(weights), len(target)), np.int64)
    for fold in range(FOLDS):
        inside = folds == fold
        scorer, part = fit(table.of_rows(~inside)), table.of_rows(inside)
        for row, scores in zip(ranks, scorer.scores_by(weights, part), strict=True):
            row[inside] = part.pairs.ranks(scores, target)[inside]
    return ranks


def folds_of(rows: Rows, seed: int = FOLD_SEED) -> NDArray[np.int64]:
    """A number below `FOLDS` for each row, the same for all rows of a user."""
    users = rows.users.dictionary_encode().indices.to_numpy()
    folds = np.random.default_rng(seed).permutation(int(users.max()) + 1) % FOLDS
    found: NDArray[np.int64] = folds[users]
    return found
