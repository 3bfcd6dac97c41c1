"""What the task `text_neighbours` gives to items that no training row holds, and to all others.

Trains `recipes/amazon-industrial-sids.yaml` on SIDs of `sidtune sids`: as it is, with as many steps
as the task adds, and with the task. Finished runs are kept in the folder and not repeated; a run
that was stopped goes on from its last checkpoint. Settings are chosen on validation rows:
`--split test` is for the end.

    export SIDTUNE_DATA=folder
    python benchmarks/unseen_items.py --folder kept                  # 2 seeds, 80 minutes of a core
    python benchmarks/unseen_items.py --folder kept --split test
    python benchmarks/unseen_items.py --folder kept --only "with the task"
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from commands import sidtune
from paired import METRICS, differences, figures, run_folder, shown

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "amazon-industrial-sids.yaml"
OUTCOME = Path(__file__).with_suffix(".json")
SHOP = "amazon-industrial"
ITEMS = "Industrial_and_Scientific.item.json"
REFERENCE = "histories alone"
# Overrides of the recipe, by the name of the row; the task has 37% more examples.
ROWS: dict[str, tuple[str, ...]] = {
    REFERENCE: (),
    "histories alone, 33 epochs": ("training.epochs=33",),
    "with the task": ("tasks.text_neighbours={}",),
}


def main() -> None:
    """Do what is not yet done, one run after another, and print the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="index and runs are kept here")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    asked = parser.parse_args()
    os.environ.setdefault("SIDTUNE_DATA", "../shared/data")
    folder: Path = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        for name in asked.only:
            run(name, seed, folder, asked.split)
            report(folder, asked.split)


def run(name: str, seed: int, folder: Path, split: str) -> None:
    """Train a row and evaluate it, unless that is done."""
    output = run_folder(folder, name, seed)
    shop = Path(os.environ["SIDTUNE_DATA"]) / SHOP
    data = {"items": str(shop / ITEMS), "train": str(shop / "train.csv")}
    if not (output / "final_checkpoint").is_dir():
        base = folder / "base"
        if not base.exists():
            sidtune("new-model", str(base))
        config = folder / "sids.yaml"
        tree = {"output_dir": str(folder), "data": data}
        config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        index = json.loads(sidtune("sids", str(config), "--json"))["index"]
        settings = [
            *(f"data.index={index}", f"data.items={data['items']}", "data.unique_sids=false"),
            *(f"model.base={base}", f"output_dir={output}", f"seed={seed}"),
            # The figures are the model's own.
            "rank.fit=never",
        ]
        sidtune("train", str(RECIPE), *settings, *ROWS[name])
    if not figures(output, split):
        sidtune("evaluate", str(output), "--split", split, "--no-baselines")


def report(folder: Path, split: str) -> None:
    """Print what there is so far and write it as JSON."""
    rows: list[dict[str, Any]] = []
    for name, settings in ROWS.items():
        runs = {seed: run_folder(folder, name, seed) for seed in range(1, 100)}
        seeds = {seed: found for seed in runs if (found := figures(runs[seed], split))}
        if not seeds:
            continue
        row: dict[str, Any] = {"row": name, "settings": settings, "seeds": seeds}
        row["mean"] = {
            metric: mean(found[metric] for found in seeds.values()) for metric in METRICS
        }
        both = [seed for seed in seeds if figures(run_folder(folder, REFERENCE, seed), split)]
        if name != REFERENCE and both:
            own, theirs = (
                [run_folder(folder, which, seed) for seed in both] for which in (name, REFERENCE)
            )
            row["gain"] = differences(own, theirs, split)
        rows.append(row)
        cells = (
            f"{row['mean'][metric]:>10.4f}{shown(row.get('gain', {}).get(metric)):>26}"
            for metric in METRICS
        )
        print(f"{name:<28}{len(seeds):>3}" + "".join(cells), flush=True)
    kept = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    OUTCOME.write_text(json.dumps({**kept, split: rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
