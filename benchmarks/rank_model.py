"""Measure what finished models add to the ranker, and what more beams of its list do.

    python benchmarks/rank_model.py adds --runs runs/first runs/second runs/third
    python benchmarks/rank_model.py adds --split test --runs runs/first runs/second runs/third
    python benchmarks/rank_model.py beams --runs runs/first

A single fit of the ranker is as noisy as what a small model adds, so every figure is the mean of
five fits that differ in the folds and in the drawn candidates. The seeds are the same for every
model, and with and without it, so differences are paired over rows and fits.

`adds` compares the ranker with and without the model, on validation rows by rankers that were
fitted on other users, or on test rows by rankers that were fitted on the validation rows. Give the
seeds of one shop.

`beams` searches the validation rows of one run with several numbers of beams, in turn, in batches
of 32 users, and fits the ranker on each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidtune.base.terminal import quiet_libraries
from sidtune.config.rank import RankConfig
from sidtune.config.search import RankOptions
from sidtune.data.rows import Rows, Split, drawn
from sidtune.decoding.lists import Lists, rank_histories
from sidtune.decoding.recommender import Recommender
from sidtune.evaluation.compare import interval_of
from sidtune.metrics.metrics import gains, hits
from sidtune.pipeline.rank import known_of
from sidtune.ranker.pairs import Asked
from sidtune.ranker.ranker import cross_fitted, fit_sources, folds_of
from sidtune.ranker.scorers import Scorer, weights_for
from sidtune.ranker.sources.base import Known
from sidtune.ranker.table import Sources, Table, tabulate
from sidtune.runs.files import CONFIG
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import load_config
from sidtune.tasks.source import load_split

OUTCOME = Path(__file__).with_name("rank.json")
METRICS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]] = {
    "HR@10": lambda ranks: hits(ranks, 10),
    "NDCG@10": lambda ranks: gains(ranks, 10),
    "HR@50": lambda ranks: hits(ranks, 50),
}
FITS, ROWS_SEED = 5, 0
BEAMS, BATCH = (50, 100, 150), 32
Ranks = NDArray[np.int64]


def main() -> None:
    """Measure one part and keep the others of the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["adds", "beams"])
    parser.add_argument("--runs", nargs="+", type=Path, required=True)
    parser.add_argument("--split", choices=["valid", "test"], default="valid", help="with adds")
    parser.add_argument("--name", default="amazon-industrial", help="of the shop, in the JSON")
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    if options.part == "adds":
        found = adds(options.runs, options.split)
        place = ["model", options.name, options.split]
    else:
        (run,) = options.runs
        found, place = beams(run), ["beams", options.name]
    print(json.dumps(found, indent=1))
    kept = json.loads(OUTCOME.read_text(encoding="utf-8"))
    part = kept
    for name in place[:-1]:
        part = part.setdefault(name, {})
    part[place[-1]] = found
    OUTCOME.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def adds(runs: list[Path], split: Split) -> dict[str, Any]:
    """Figures of each run, and what the model adds, also as the mean over the runs."""
    found: dict[str, Any] = {"fits": FITS, "runs": {}}
    with_model, without = [], []
    for run in runs:
        shop = _Shop.of(run)
        learned = shop.table(shop.rows, shop.config.rank.beams)
        asked, rows = learned, shop.rows
        if split == "test":
            rows = load_split(shop.config.data, shop.known.catalogue, "test")
            asked = shop.table(rows, shop.config.rank.beams)
        pairs = (learned, asked), (learned.without("model"), asked.without("model"))
        first, second = (
            shop.fits(*pair, None if split == "valid" else rows.target) for pair in pairs
        )
        with_model.append(first)
        without.append(second)
        found["rows"] = len(rows.target)
        found["runs"][run.name] = {
            "ranker": averages(first),
            "ranker without model": averages(second),
            "adds": difference(first, second),
        }
    found["adds"] = difference(np.concatenate(with_model), np.concatenate(without))
    return found


def beams(run: Path) -> dict[str, Any]:
    """Time and figures of each number of beams, and the difference from the first number."""
    shop = _Shop.of(run)
    lists, searched = shop.searched()
    found: dict[str, Any] = {"fits": FITS, "rows": len(shop.rows.target), "batch": BATCH}
    every = {}
    for width in BEAMS:
        began = time.process_time()
        table = shop.tabulated(shop.rows, lists[width], width)
        asked = time.process_time() - began
        every[width] = shop.fits(table, table, None)
        found[str(width)] = {
            "search_ms_a_user": round(searched[width], 2),
            "sources_ms_a_user": round(1000 * asked / len(table.pairs.counts), 2),
            "candidates_a_user": round(len(table.pairs) / table.pairs.rows),
            "ranker": averages(every[width]),
            "more": difference(every[width], every[BEAMS[0]]),
        }
    return found


class _Shop:
    """A run's model, the rows that the ranker learns from, and its sources."""

    def __init__(self, config: Config, recommender: Recommender, known: Known) -> None:
        assert known.valid
        self.config, self.recommender, self.known = config, recommender, known
        self.rows = known.valid.take(drawn(len(known.valid.target), config.rank.rows, ROWS_SEED))
        self.sources: Sources
        self.sources, _ = fit_sources(known, config.rank.used)

    @classmethod
    def of(cls, run: Path) -> _Shop:
        """What a run left."""
        config, recommender = load_config(run / CONFIG), Recommender.load(run, rank=False)
        known = known_of(config, recommender.bundle.catalogue)
        return cls(config, recommender, known)

    def table(self, rows: Rows, width: int) -> Table:
        """Candidates of rows."""
        lists = self.recommender.lists(rows.history, RankOptions(width))
        return self.tabulated(rows, lists, width)

    def tabulated(self, rows: Rows, lists: Lists, width: int) -> Table:
        """Candidates of rows whose lists are known."""
        found = self.recommender.asked(rows.history, lists, RankOptions(width)).beams
        asked = Asked(rows.history, len(self.known.catalogue.ids), found)
        return tabulate(self.sources, asked, bar=False)

    def searched(self) -> tuple[dict[int, Lists], dict[int, float]]:
        """Lists of each number of beams, and the median of the core's milliseconds a user."""
        parts: dict[int, list[Lists]] = {width: [] for width in BEAMS}
        spent: dict[int, list[float]] = {width: [] for width in BEAMS}
        own = self.recommender
        for number, start in enumerate(range(0, len(self.rows.target), BATCH)):
            end = min(start + BATCH, len(self.rows.target))
            history = self.rows.history.take(np.arange(start, end))
            for width in np.roll(BEAMS, number).tolist():
                began = time.process_time()
                options = RankOptions(width)
                found = rank_histories(
                    own.decoder, own.prompts, own.answers, history, options, bar=False
                )
                spent[width].append(1000 * (time.process_time() - began) / (end - start))
                parts[width].append(found)
        lists = {width: _joined(each) for width, each in parts.items()}
        return lists, {width: float(np.median(each)) for width, each in spent.items()}

    def fits(self, learned: Table, asked: Table, target: NDArray[np.integer] | None) -> Ranks:
        """Ranks of targets by `FITS` fits, `(fits, rows)`.

        Args:
            learned: of the rows that the ranker learns from.
            asked, target: of rows that it ranks; without `target` it ranks those it learns from, by
                fits on other users.
        """
        return np.stack([*self._fits(learned, asked, target)])

    def _fits(
        self, learned: Table, asked: Table, target: NDArray[np.integer] | None
    ) -> Iterator[Ranks]:
        options: RankConfig = self.config.rank
        for seed in range(FITS):

            def fit(part: Table, seed: int = seed) -> Scorer:
                return Scorer.fit(part, self.rows.target, options, seed + 1)

            if target is None:
                folds = folds_of(self.rows, seed)
                weights = weights_for(len(self.rows.target))[:1]
                yield cross_fitted(learned, self.rows.target, folds, fit, weights)[0]
            else:
                yield asked.pairs.ranks(fit(learned).scores(asked), target)


def _joined(parts: list[Lists]) -> Lists:
    starts = np.cumsum([0, *(len(part.sids) for part in parts[:-1])])
    return Lists(
        np.concatenate([part.sids for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.too_long + at for part, at in zip(parts, starts, strict=True)]),
    )


def averages(ranks: Ranks) -> dict[str, dict[str, float]]:
    """The mean over fits, and their standard deviation; `(fits, rows)`."""
    found = {name: measure(ranks).mean(axis=1) for name, measure in METRICS.items()}
    return {
        name: {"value": round(each.mean(), 4), "sd_of_fits": round(each.std(ddof=1), 4)}
        for name, each in found.items()
    }


def difference(first: Ranks, second: Ranks) -> dict[str, dict[str, Any]]:
    """What the first has more: the mean over fits and rows with the 95% interval over rows, and the
    standard deviation over fits; both `(fits, rows)`, of equal seeds.
    """
    found = {}
    for name, measure in METRICS.items():
        more = measure(first) - measure(second)
        low, high = interval_of(more.mean(axis=0))
        ends = {"value": more.mean(), "low": low, "high": high}
        ends["sd_of_fits"] = more.mean(axis=1).std(ddof=1)
        found[name] = {key: round(float(value), 4) for key, value in ends.items()}
    return found


if __name__ == "__main__":
    main()
