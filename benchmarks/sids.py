"""Train one recipe on several SID indexes and seeds, and compare each index with the published one.

Every index is made by `sidtune sids`, every run is `recipes/amazon-industrial-sids.yaml` with
another `data.index`, and every comparison is a paired bootstrap over the same rows. Finished
indexes, runs and evaluations are kept in the folder and not repeated; a run that was stopped goes
on from its last checkpoint. Settings are chosen on validation rows: `--split test` is for the end.

    export SIDTUNE_DATA=folder
    python benchmarks/sids.py --folder kept                  # all, 3 seeds, validation
    python benchmarks/sids.py --folder kept --indexes published default --seeds 1
    python benchmarks/sids.py --folder kept --split test
    python benchmarks/sids.py --folder kept --table          # the results so far
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from commands import sidtune
from paired import METRICS, differences, figures, run_folder, shown

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "amazon-industrial-sids.yaml"
OUTCOME = Path(__file__).with_suffix(".json")
SHOP = "Industrial_and_Scientific"
PUBLISHED, RANDOM = "published", "random"
# Sections `sids`, by name. What an index needs that is not there (an encoder's folder) is asked for
# by name.
INDEXES: dict[str, dict[str, Any]] = {
    "default": {},
    "extra token": {"collisions": "extra_token"},
    "keep": {"collisions": "keep"},
    "balanced": {"quantizer": "balanced"},
    "rq_vae": {"quantizer": "rq_vae"},
    "rq_kmeans_plus": {"quantizer": "rq_kmeans_plus"},
    "product": {"quantizer": "product"},
    "levels 64, 256, 256": {"levels": [64, 256, 256]},
    "levels 128, 128, 128": {"levels": [128, 128, 128]},
    "co-occurrence": {"vectors": "co_occurrence"},
    "text and 0.25 co-occurrence": {"vectors": {"text": 1, "co_occurrence": 0.25}},
    "text and 0.5 co-occurrence": {"vectors": {"text": 1, "co_occurrence": 0.5}},
    "text and 1 co-occurrence": {"vectors": {"text": 1, "co_occurrence": 1}},
    "title and brand": {"columns": ["brand"]},
}


def main() -> None:
    """Do what is not yet done, one run after another, and print the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="indexes and runs are kept here")
    parser.add_argument(
        "--indexes", nargs="*", default=[PUBLISHED, *INDEXES, RANDOM], help="by name"
    )
    parser.add_argument(
        "--encoder", type=Path, help="folder of a text encoder: adds the index `encoder`"
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--table", action="store_true", help="run nothing")
    asked = parser.parse_args()
    os.environ.setdefault("SIDTUNE_DATA", "../shared/data")
    if asked.encoder:
        INDEXES["encoder"] = {"vectors": "encoder", "encoder": str(asked.encoder.absolute())}
        asked.indexes.append("encoder")
    if unknown := set(asked.indexes) - {PUBLISHED, RANDOM, *INDEXES}:
        raise SystemExit(
            f"no such index: {', '.join(sorted(unknown))}; known are {PUBLISHED}, {RANDOM},"
            f" {list(INDEXES)}"
        )
    asked.folder.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that what is there so far compares.
    for seed in asked.seeds if not asked.table else ():
        for name in asked.indexes:
            run(name, seed, asked.folder, asked.split)
            report(asked.folder, asked.split)
    report(asked.folder, asked.split)


def run(name: str, seed: int, folder: Path, split: str) -> None:
    """Train on an index and evaluate, unless that is done."""
    output = run_folder(folder, name, seed)
    if not (output / "final_checkpoint").is_dir():
        base = folder / "base"
        if not base.exists():
            sidtune("new-model", str(base))
        settings = [
            f"data.index={index_of(name, folder)}",
            f"model.base={base}",
            f"output_dir={output}",
            f"seed={seed}",
            # The figures are the model's own.
            "rank.fit=never",
        ]
        # The recipe's extra token is for the published index; ours have their own rule.
        settings.append(f"data.unique_sids={str(name == PUBLISHED).lower()}")
        sidtune("train", str(RECIPE), *settings, f"encoding.cache_dir={folder / 'cache'}")
    if not (output / "evaluation" / f"{split}.json").is_file():
        sidtune("evaluate", str(output), "--split", split, "--no-baselines")


def index_of(name: str, folder: Path) -> Path:
    """The file of an index, made where there is none."""
    shop = Path(os.environ["SIDTUNE_DATA"]) / "amazon-industrial"
    published = shop / f"{SHOP}.index.json"
    if name == PUBLISHED:
        return published
    if name == RANDOM:
        return random_index(published, folder / "random.index.json")
    config = folder / f"{name.replace(' ', '-')}.yaml"
    data = {"items": str(shop / f"{SHOP}.item.json"), "train": str(shop / "train.csv")}
    tree = {"output_dir": str(folder / "indexes"), "data": data, "sids": INDEXES[name]}
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return Path(json.loads(sidtune("sids", str(config), "--json"))["index"])


def random_index(published: Path, path: Path) -> Path:
    """Three random tokens of 256 for each item, all SIDs distinct."""
    if not path.exists():
        ids = list(json.loads(published.read_text(encoding="utf-8")))
        numbers = random.Random(0).sample(range(256**3), len(ids))
        sids = [[f"<a_{n >> 16}>", f"<b_{n >> 8 & 255}>", f"<c_{n & 255}>"] for n in numbers]
        path.write_text(json.dumps(dict(zip(ids, sids, strict=True))), encoding="utf-8")
    return path


def report(folder: Path, split: str) -> None:
    """Print what there is so far and write it as JSON, with what was measured in other folders."""
    rows: list[dict[str, Any]] = []
    for name in (PUBLISHED, *INDEXES, RANDOM):
        seeds = {
            seed: found
            for seed in range(1, 100)
            if (found := figures(run_folder(folder, name, seed), split))
        }
        if seeds:
            means = {metric: mean(found[metric] for found in seeds.values()) for metric in METRICS}
            sids = INDEXES.get(name)
            if sids and "encoder" in sids:
                # Where its folder lies says nothing.
                sids = {"vectors": "encoder"}
            rows.append({"index": name, "sids": sids, "seeds": seeds, "mean": means})
            rows[-1]["against_published"] = against_published(folder, name, list(seeds), split)
    kept = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    here = {row["index"] for row in rows}
    rows += [row for row in kept.get(split, ()) if row["index"] not in here]
    print(
        f"{'index':<32}{'seeds':>6}"
        + "".join(f"{metric:>10}{'difference (95%)':>26}" for metric in METRICS)
    )
    for row in rows:
        cells = [
            f"{row['mean'][metric]:>10.4f}{shown(row['against_published'].get(metric)):>26}"
            for metric in METRICS
        ]
        print(f"{row['index']:<32}{len(row['seeds']):>6}" + "".join(cells), flush=True)
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    OUTCOME.write_text(
        json.dumps({**kept, "recipe": recipe, split: rows}, indent=1) + "\n", encoding="utf-8"
    )


def against_published(
    folder: Path, name: str, seeds: list[int], split: str
) -> dict[str, dict[str, float]]:
    """Index less published index, over the seeds that both have."""
    both = [seed for seed in seeds if figures(run_folder(folder, PUBLISHED, seed), split)]
    if name == PUBLISHED or not both:
        return {}
    own, theirs = (
        [run_folder(folder, which, seed) for seed in both] for which in (name, PUBLISHED)
    )
    return differences(own, theirs, split)


if __name__ == "__main__":
    main()
