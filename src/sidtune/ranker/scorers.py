"""What puts candidates in order: trees that are learned, and a weighted mean of the sources, which
counts the more, the less there is to learn from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.config.rank import RankConfig, SourceName
from sidtune.metrics.metrics import gains
from sidtune.ranker.sources import SOURCES
from sidtune.ranker.table import Table

INSTALL = "pip install 'sidtune[rank]'"
CUTOFF = 10
SEED = 1
# Of the ranking loss: pairs of candidates count where one of them stands among so many first.
TRUNCATION = 20
# Candidates besides the target that a row is learned from: with all of them, some 150, learning
# took 2.5 times as long and ranked no better.
OTHERS = 60
LEAST_IN_LEAF = 50
# Weights of a mixture are multiples of a tenth; all in twice that are tried first, on this many
# rows.
TENTHS, COARSE, MIXED_ROWS = 10, 2, 1_000
# Fewer rows teach trees nothing of use. A mixture beside them has the weight EQUAL / rows, and
# HEAVIEST at the most, or more where that ranks better (docs/quality.md).
LEAST_ROWS, EQUAL, HEAVIEST = 60, 600, 2.0
MORE = (1.0, 4.0, math.inf)
# Below it, a share of a mixture says no more.
LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Trees:
    """LambdaMART (Burges, 2010), as in LightGBM.

    Args:
        text: LightGBM's own text format.
        columns: the features it reads, in order.
    """

    text: str
    columns: tuple[str, ...]

    @classmethod
    def fit(
        cls, table: Table, target: NDArray[np.integer], options: RankConfig, seed: int = SEED
    ) -> Trees:
        """Learn from the rows whose target is a candidate, and of each of them from the target and
        `OTHERS` more, drawn by the seed. Equal for equal inputs, whatever the number of threads.
        """
        lightgbm = import_lightgbm()
        learned = _learned(table, target, seed)
        counts = learned.pairs.counts
        data = lightgbm.Dataset(
            learned.features,
            learned.pairs.hit(target).astype(np.int32),
            group=counts[counts > 0],
            feature_name=list(table.columns),
        )
        settings = {
            "objective": "lambdarank",
            "num_leaves": options.leaves,
            "learning_rate": options.learning_rate,
            "lambdarank_truncation_level": TRUNCATION,
            "min_data_in_leaf": LEAST_IN_LEAF,
            "deterministic": True,
            "force_col_wise": True,
            "seed": seed,
            "verbose": -1,
        }
        made = lightgbm.train(settings, data, options.trees)
        return cls(made.model_to_string(), table.columns)

    def scores(self, table: Table) -> NDArray[np.float64]:
        """Sums over the trees."""
        if not len(table.pairs):
            return np.zeros(0)
        places = [table.columns.index(name) for name in self.columns]
        found: NDArray[np.float64] = self.booster.predict(table.features[:, places])
        return found

    @cached_property
    def booster(self) -> Any:
        """LightGBM's object."""
        return import_lightgbm().Booster(model_str=self.text)

    def importance(self) -> dict[str, float]:
        """The share of each feature in the gain of all splits, highest first."""
        gain = np.asarray(self.booster.feature_importance("gain"), np.float64)
        shares = gain / max(gain.sum(), 1e-12)
        order = np.argsort(-shares, kind="stable")
        return {self.columns[place]: float(shares[place]) for place in order}


@dataclass(frozen=True)
class Mixture:
    """A weighted mean of the sources' shares; each source's shares of a row sum to 1.

    Args:
        weights: of the sources that take part; they sum to 1.
    """

    weights: Mapping[SourceName, float]

    @classmethod
    def fit(cls, table: Table, target: NDArray[np.integer]) -> Mixture:
        """With the weights, in tenths, that have the best NDCG@10: of all in fifths, and then of
        those next to the best.

        Maximum likelihood would favour the source that gives every item some probability.
        """
        names = [name for name in dict.fromkeys(table.owner) if SOURCES[name].mixes]
        # The others are misses with any weights.
        table = table.of_rows(_held(table, table.pairs.hit(target)))
        shares = {name: _shares(name, table) for name in names}

        def gained(weights: tuple[int, ...]) -> float:
            parts = zip(weights, shares.values(), strict=True)
            scores = sum((weight * share for weight, share in parts), np.zeros(len(table.pairs)))
            return float(gains(table.pairs.ranks(scores, target), CUTOFF).mean())

        coarse = max(
            _summing(len(names), TENTHS // COARSE),
            key=lambda fifths: gained(tuple(COARSE * part for part in fifths)),
        )
        first = tuple(weight * COARSE for weight in coarse)
        best = max((first, *_next_to(first)), key=gained)
        weights = zip(names, best, strict=True)
        return cls({name: weight / TENTHS for name, weight in weights if weight})

    def scores(self, table: Table) -> NDArray[np.float64]:
        """The weighted mean."""
        scores = np.zeros(len(table.pairs))
        for name, weight in self.weights.items():
            scores += weight * _shares(name, table)
        return scores


@dataclass(frozen=True)
class Scorer:
    """The sum of trees and a mixture, each with mean 0 and variance 1 among a row's candidates; the
    mixture by its logarithm.

    Args:
        trees: None for the mixture alone.
        weight: of the mixture beside the trees.
    """

    mixture: Mixture
    trees: Trees | None = None
    weight: float = 1.0

    @classmethod
    def fit(
        cls, table: Table, target: NDArray[np.integer], options: RankConfig, seed: int = SEED
    ) -> Scorer:
        """With the first of `weights_for`; without trees where there are too few rows, or no
        LightGBM.
        """
        rows = int((table.pairs.counts > 0).sum())
        mixture = Mixture.fit(_drawn(table, seed), target)
        if rows < LEAST_ROWS or not table.pairs.hit(target).any() or not has_lightgbm():
            return cls(mixture)
        return cls(mixture, Trees.fit(table, target, options, seed), weights_for(rows)[0])

    def weighing(self, weight: float) -> Scorer:
        """With another weight of the mixture, which is alone where that is infinite."""
        return Scorer(self.mixture) if math.isinf(weight) else replace(self, weight=weight)

    def scores(self, table: Table) -> NDArray[np.float64]:
        """Higher is better, `(pairs,)`."""
        return self.scores_by((self.weight,), table)[0]

    def scores_by(self, weights: Sequence[float], table: Table) -> list[NDArray[np.float64]]:
        """The scores with each of these weights of the mixture, which is alone where the weight is
        infinite.
        """
        mixed = self.mixture.scores(table)
        if self.trees is None:
            return [mixed] * len(weights)
        learned = _standard(self.trees.scores(table), table)
        beside = _standard(np.log(np.maximum(mixed, LEAST_SHARE)), table)
        return [mixed if math.isinf(one) else learned + one * beside for one in weights]


def weights_for(rows: int) -> tuple[float, ...]:
    """Weights of the mixture that may be chosen with so many rows, smallest first."""
    own = min(HEAVIEST, EQUAL / max(1, rows))
    return (own, *(weight for weight in MORE if weight > own))


def _standard(scores: NDArray[np.float64], table: Table) -> NDArray[np.float64]:
    """Scores with mean 0 and variance 1 in each row; 0 where all are equal."""
    row, rows = table.pairs.row, table.pairs.rows
    counts = np.maximum(table.pairs.counts, 1)
    left = scores - (np.bincount(row, scores, rows) / counts)[row]
    spread = np.sqrt(np.bincount(row, left**2, rows) / counts)
    found: NDArray[np.float64] = left / np.maximum(spread, 1e-9)[row]
    return found


def _drawn(table: Table, seed: int) -> Table:
    """The candidates of at most `MIXED_ROWS` of the rows that have any."""
    there = np.flatnonzero(table.pairs.counts)
    if len(there) <= MIXED_ROWS:
        return table
    kept = np.zeros(table.pairs.rows, bool)
    kept[np.random.default_rng(seed).choice(there, MIXED_ROWS, replace=False)] = True
    return table.of_rows(kept)


def _learned(table: Table, target: NDArray[np.integer], seed: int) -> Table:
    pairs, hit = table.pairs, table.pairs.hit(target)
    held = _held(table, hit)
    drawn = np.random.default_rng(seed).random(len(pairs))
    drawn[hit] = -1
    return table.only(held[pairs.row] & (pairs.places(-drawn) <= OTHERS))


def _held(table: Table, hit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows have their target among the candidates, `(rows,)`; `hit` marks the targets."""
    held = np.zeros(table.pairs.rows, bool)
    held[table.pairs.row[hit]] = True
    return held


def has_lightgbm() -> bool:
    """Whether trees can be learned here."""
    try:
        import_lightgbm()
    except UserError:
        return False
    return True


def import_lightgbm() -> Any:
    """LightGBM.

    Raises:
        UserError: where it is not installed.
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        raise UserError(
            f"the ranker's trees need LightGBM, which is not installed ({error})", INSTALL
        ) from None
    return lightgbm


def _shares(name: SourceName, table: Table) -> NDArray[np.float64]:
    """A source's shares, scaled to sum to 1 in each row."""
    given = SOURCES[name].share(table.of(name))
    totals = np.bincount(table.pairs.row, given, table.pairs.rows)
    scaled: NDArray[np.float64] = given / np.maximum(totals, 1e-12)[table.pairs.row]
    return scaled


def _summing(count: int, total: int) -> Iterator[tuple[int, ...]]:
    """All ways to give `count` sources, at least one, whole weights that sum to `total`."""
    for given in product(range(total + 1), repeat=count - 1):
        if sum(given) <= total:
            yield (*given, total - sum(given))


def _next_to(weights: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The weights with the same sum of which none differs by more than 1."""
    for steps in product((-1, 0, 1), repeat=len(weights)):
        moved = tuple(weight + step for weight, step in zip(weights, steps, strict=True))
        if not sum(steps) and min(moved) >= 0:
            yield moved
