"""Measure the ranker without a model: what it reaches in public shops, and what it costs.

    SIDTUNE_DATA=folder python benchmarks/rank.py quality
    SIDTUNE_DATA=folder python benchmarks/rank.py later
    python benchmarks/rank.py cost

`quality` fits the ranker on validation rows without a model, and ranks the test rows once, with all
sources and without the number of training users (see docs/ranking.md), beside each source alone.
Histories are kept in amazon-industrial and left out in the other shops.

`later` splits MovieLens by dates: 80% of the events for training, 10% for validation, 10% for test.
The ranker is fitted on the validation rows, and the test rows are ranked twice: as it is, and after
the validation period's events were counted in, as `sidtune rank --events` does.

`cost` makes up shops of 100,000 and a million items, each with five events an item, and measures
building the sources, and ranking by them 500 users at once and one user at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from commands import sidtune
from sidtune.base.ragged import Ragged
from sidtune.base.terminal import quiet_libraries
from sidtune.config.rank import RankConfig
from sidtune.data.catalogue import Catalogue
from sidtune.data.popularity import popularity
from sidtune.data.rows import Rows, drawn, stacked
from sidtune.encoding.build import load_catalogue
from sidtune.metrics.metrics import gains, hits, mean, proportion
from sidtune.opponents.baselines import Baselines
from sidtune.pipeline.defaults import load_run
from sidtune.ranker.pairs import Asked, Floats
from sidtune.ranker.ranker import fit_ranker, fit_sources
from sidtune.ranker.scorers import Scorer
from sidtune.ranker.sources.base import Known
from sidtune.ranker.table import tabulate
from sidtune.ranker.texts import text_vectors
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.tasks.source import load_split

OUTCOME = Path(__file__).with_suffix(".json")
PREDICTION = (
    "Written down before: building at a million items under two minutes and 4 GB, since each source"
    " keeps at most 200 entries an item; ranking at 100,000 items under 5 ms a user, most of it the"
    " products with the vectors of texts and of behaviour."
)
Shop = Callable[[Path, Path], Config]
FIT_SEED, DIMENSIONS, SEQUENCE, WALK = 0, 128, 10, 50
# Users that are ranked one at a time.
ALONE = 50


def main() -> None:
    """Measure one part and keep the other part of the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["quality", "later", "cost"])
    parser.add_argument("--shops", nargs="+", default=list(SHOPS))
    parser.add_argument(
        "--items", type=int, nargs="+", default=[100_000, 1_000_000], help="with cost"
    )
    options = parser.parse_args()
    quiet_libraries()
    kept = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.is_file() else {}
    kept["prediction"] = PREDICTION
    if options.part == "quality":
        data = Path(os.environ.get("SIDTUNE_DATA", "../shared/data"))
        found = kept.setdefault("quality", {})
        for shop in options.shops:
            found[shop] = quality(shop, data)
            print(json.dumps({shop: found[shop]}, indent=1), flush=True)
    elif options.part == "later":
        kept["later"] = later(Path(os.environ.get("SIDTUNE_DATA", "../shared/data")))
        print(json.dumps(kept["later"], indent=1))
    else:
        found = kept.setdefault("cost", {})
        for items in options.items:
            found[f"{items:,}"] = cost(items)
            print(json.dumps({items: found[f"{items:,}"]}, indent=1), flush=True)
    OUTCOME.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def industrial(data: Path, scratch: Path) -> Config:
    """Rows as they are published, texts."""
    folder = data / "amazon-industrial"
    splits = {split: str(folder / f"{split}.csv") for split in ("train", "valid", "test")}
    name = "Industrial_and_Scientific"
    return _config(
        {
            "index": str(folder / f"{name}.index.json"),
            "items": str(folder / f"{name}.item.json"),
            **splits,
        }
    )


def whole(folder: str, name: str) -> Shop:
    """Whole histories, leave-one-out."""

    def config(data: Path, scratch: Path) -> Config:
        return _config(
            {
                "index": str(data / folder / f"{name}.index.json"),
                "interactions": str(data / folder / f"{name}.inter.json"),
            }
        )

    return config


def movielens(data: Path, scratch: Path, **events: Any) -> Config:
    """Raw events and a catalogue, prepared, with SIDs of `sidtune sids`."""
    place = data.absolute() / "movielens-small"
    tree = {
        "output_dir": str(scratch / "run"),
        "events": {"files": str(place / "ratings.csv"), **events},
        "catalogue": {"file": str(place / "movies.csv")},
    }
    file = scratch / "shop.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    for command in ("prepare", "sids"):
        sidtune(command, str(file))
    return load_run(file, model=False)


def _config(data: dict[str, str]) -> Config:
    tree = {"output_dir": "unused", "model": {"base": "unused"}, "data": data}
    return parse_config(tree, "the benchmark")


# The files of a shop, and whether histories are left out of the lists.
SHOPS: dict[str, tuple[Shop, bool]] = {
    "amazon-industrial": (industrial, False),
    "instruments": (whole("instruments", "Instruments"), True),
    "amazon-beauty": (whole("amazon-beauty", "Beauty"), True),
    "movielens-small": (partial(movielens, k_core=5), True),
}


def quality(shop: str, data: Path) -> dict[str, Any]:
    """Figures of the test rows, looked at once."""
    place, exclude = SHOPS[shop]
    with tempfile.TemporaryDirectory() as scratch:
        known, test = shop_of(place(data, Path(scratch)))
    catalogue, items = known.catalogue, len(known.catalogue.ids)
    if shop == "amazon-beauty":
        known = replace(known, texts=attributes(data, catalogue))
    train, valid, texts = known.train, known.valid, known.texts
    assert valid
    options = RankConfig()
    rows = valid.take(drawn(len(valid.target), options.rows, FIT_SEED))
    began = time.monotonic()
    fitted = fit_ranker(known, rows, None, options)
    seconds = time.monotonic() - began
    excluded = test.history if exclude else None
    table = tabulate(fitted.ranker.sources, Asked(test.history, items, None, None, excluded))
    found = {"ranker": table.pairs.ranks(fitted.ranker.scorer.scores(table), test.target)}
    without = table.without("popularity")
    learned = tabulate(fitted.ranker.sources, Asked(rows.history, items)).without("popularity")
    scorer = Scorer.fit(learned, rows.target, options)
    found["ranker without popularity"] = without.pairs.ranks(scorer.scores(without), test.target)
    baselines = Baselines.fit(train, valid, items, texts=texts, exclude_history=exclude)
    ranked = baselines.rank(
        test.history, test.target, np.arange(items), 50, exclude_history=exclude
    )
    found |= {name: ranking.item_ranks for name, ranking in ranked.items()}
    return {
        "history_left_out": exclude,
        "fit_seconds": round(seconds),
        "chosen": baselines.as_json(),
        "test": {name: figures(ranks) for name, ranks in found.items()},
        "validation": {name: figures(ranks) for name, ranks in fitted.ranks.items()},
        "rows": {"train": len(train.target), "valid": len(rows.target), "test": len(test.target)},
    }


def later(data: Path) -> dict[str, Any]:
    """Test rows before and after later events are counted in, all and by what the target is."""
    with tempfile.TemporaryDirectory() as scratch:
        config = movielens(data, Path(scratch), split="global_time")
        known, test = shop_of(config)
    train, valid, users, items = known.train, known.valid, known.users, len(known.catalogue.ids)
    assert valid
    rows = valid.take(drawn(len(valid.target), RankConfig().rows, FIT_SEED))
    before = fit_ranker(known, rows, None, RankConfig()).ranker
    both = stacked([train, valid])
    after = before.recounted(replace(known, train=both, users=popularity(both, items)))
    groups = {
        "all": np.ones(len(test.target), bool),
        "item not in training": users[test.target] == 0,
        "item first seen in between": (users[test.target] == 0)
        & (popularity(both, items)[test.target] > 0),
        "user not in training": ~np.isin(test.users.to_pylist(), train.users.to_pylist()),
    }
    found: dict[str, Any] = {name: {"rows": int(mask.sum())} for name, mask in groups.items()}
    for when, ranker in (("before", before), ("after", after)):
        lists, _ = ranker.rank(Asked(test.history, items), 50)
        same = lists.rectangle(50) == test.target[:, None]
        ranks = np.where(same.any(axis=1), same.argmax(axis=1) + 1, 0)
        for name, mask in groups.items():
            if mask.any():
                found[name][when] = figures(ranks[mask])
    return found


def shop_of(config: Config) -> tuple[Known, Rows]:
    """What sources are fitted on, and the test rows."""
    catalogue = load_catalogue(config)
    train, valid, test = (load_split(config.data, catalogue, s) for s in ("train", "valid", "test"))
    texts = text_vectors(config.data.items, config.sids, catalogue)
    users = popularity(train, len(catalogue.ids))
    return Known(catalogue, train, valid, users, texts), test


def attributes(data: Path, catalogue: Catalogue) -> Floats | None:
    """Vectors of Beauty's categories and brands, as texts of their numbers."""
    from sidtune.config.sids import SidsConfig
    from sidtune.sids.items import Items
    from sidtune.sids.vectors.source import Source
    from sidtune.sids.vectors.text import Text

    given = json.loads((data / "amazon-beauty" / "Beauty.attributes.json").read_text("utf-8"))
    texts = [" ".join(f"attribute{n}" for n in given.get(item, [])) for item in catalogue.ids]
    items = Items(catalogue.ids, texts, texts)
    vectors, _ = Text().fit(Source(items, SidsConfig()))
    return vectors


def figures(ranks: NDArray[np.int64]) -> dict[str, Any]:
    """HR@10, NDCG@10 and HR@50 with their intervals."""
    values = {
        "HR@10": proportion(hits(ranks, 10)),
        "NDCG@10": mean(gains(ranks, 10)),
        "HR@50": proportion(hits(ranks, 50)),
    }
    return {
        name: {key: round(number, 4) for key, number in asdict(value).items()}
        for name, value in values.items()
    }


def cost(items: int) -> dict[str, Any]:
    """Building the sources of a made-up shop, and ranking by them."""
    random = np.random.default_rng(0)
    users = items // 2
    starts = random.integers(0, items, users)
    steps = random.integers(1, WALK, (users, SEQUENCE))
    walks = (starts[:, None] + np.cumsum(steps, axis=1)) % items
    train = _rows(walks[:, :-1])
    valid = _rows(walks[: min(users, 4_000)], last_only=True)
    sids: list[tuple[str, ...]] = [
        (f"<a_{n % 256}>", f"<b_{n // 256 % 256}>", f"<c_{n // 65536}>") for n in range(items)
    ]
    names = [str(number) for number in range(items)]
    catalogue = Catalogue(names, names, names, sids)
    texts = random.standard_normal((items, DIMENSIONS), np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.monotonic(), time.process_time()
    known = Known(catalogue, train, valid, popularity(train, items), texts)
    sources, _ = fit_sources(known, RankConfig().used)
    built, used = time.monotonic() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = tabulate(sources, Asked(valid.history.take(np.arange(500)), items), bar=False)
    scorer = Scorer.fit(table, valid.target[:500], RankConfig(trees=150))

    def milliseconds(start: int, users: int) -> float:
        asked = Asked(valid.history.take(np.arange(start, start + users)), items)
        began = time.monotonic()
        found = tabulate(sources, asked, bar=False)
        found.pairs.best(scorer.scores(found), 50)
        return 1000 * (time.monotonic() - began) / users

    alone = median(milliseconds(start, 1) for start in range(ALONE))
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "build_seconds": round(built, 1),
        "build_core_seconds": round(used, 1),
        "peak_GiB": round(peak * scale / 2**30, 2),
        "peak_before_GiB": round(before * scale / 2**30, 2),
        "candidates_a_user": round(len(table.pairs) / 500),
        "ms_a_user": round(milliseconds(500, 500), 2),
        "ms_of_one_user": round(alone, 2),
    }


def _rows(walks: NDArray[np.int64], last_only: bool = False) -> Rows:
    """A row for every item of each walk but the first, or for its last one."""
    users, length = walks.shape
    cuts = [length - 1] if last_only else list(range(1, length))
    lists = [walks[:, :cut] for cut in cuts]
    values = np.concatenate([part.ravel() for part in lists])
    lengths = np.repeat(cuts, users)
    names = pa.array([str(user) for user in range(users)] * len(cuts)).dictionary_encode()
    targets = np.concatenate([walks[:, cut] for cut in cuts]).astype(np.int32)
    return Rows(names, Ragged.from_lengths(values, lengths), targets)


if __name__ == "__main__":
    main()
