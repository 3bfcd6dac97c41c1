"""What new items get: a tenth of the items, unknown to index and model, is assigned afterwards.

A tenth of the items of Amazon Industrial and Scientific, drawn by seed, is taken out of the
catalogue and of the training and validation rows. The index and the model
(`recipes/amazon-industrial-sids.yaml`) are made of the rest. `sidtune sids assign --model` then
gives the new items SIDs. Ranked are the test rows with a new target, and all others, over the whole
catalogue: without any training; after training further on the same rows with `text_neighbours`,
when no event of a new item is known; after training further on all rows; and by a model that was
trained on all rows from the start with the same SIDs.

    export SIDTUNE_DATA=folder
    python benchmarks/new_items.py --folder kept        # kept runs are not repeated
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import os
import random
from pathlib import Path
from typing import Any

import yaml

from commands import sidtune

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "amazon-industrial-sids.yaml"
OUTCOME = Path(__file__).with_suffix(".json")
SHOP = "Industrial_and_Scientific"
SHARE, SEED = 0.1, 0
FURTHER = {"epochs": 4, "learning_rate": 5e-4}
METRICS = ("HR@10", "HR@50", "NDCG@10")
Row = dict[str, Any]


def main() -> None:
    """Do what is not yet done, and print and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="files and runs are kept here")
    folder: Path = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    shop = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")).absolute() / "amazon-industrial"
    counts = write_files(shop, folder)
    base = folder / "base"
    if not base.exists():
        sidtune("new-model", str(base))
    config = write_config(folder, "sids", {"items": str(folder / "old.item.json")})
    old_index = Path(json.loads(sidtune("sids", str(config), "--json"))["index"])
    first = train(folder, "old", {"base": str(base)}, old_index, "old")
    index = assigned(folder, shop, old_index, first)
    figures = {"assigned, without training": evaluate(folder, first)}
    further = {"base": str(first), "from_scratch": False}
    items = shop / f"{SHOP}.item.json"
    texts = train(folder, "texts", further, index, "old", FURTHER, items)
    figures["trained further, no event of a new item"] = evaluate(folder, texts)
    second = train(folder, "further", further, index, "all", FURTHER)
    figures["trained further"] = evaluate(folder, second)
    whole = train(folder, "whole", {"base": str(base)}, index, "all")
    figures["trained on all rows"] = evaluate(folder, whole)
    outcome = {"counts": counts, "further": FURTHER, "figures": figures}
    OUTCOME.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    for name, found in figures.items():
        for rows, metrics in found.items():
            print(f"{name:<42}{rows:<14}", {m: round(v, 4) for m, v in metrics.items()})


def write_files(shop: Path, folder: Path) -> dict[str, int]:
    """The catalogue and the rows without the new items, and the test rows by their target."""
    items = json.loads((shop / f"{SHOP}.item.json").read_text(encoding="utf-8"))
    new = set(random.Random(SEED).sample(list(items), round(SHARE * len(items))))
    old = {item: record for item, record in items.items() if item not in new}
    (folder / "old.item.json").write_text(json.dumps(old), encoding="utf-8")
    rows = {split: read_rows(shop / f"{split}.csv") for split in ("train", "valid", "test")}
    counts = {"items": len(items), "new_items": len(new)}
    for split in ("train", "valid"):
        kept = [without(row, new) for row in rows[split] if row["item_id"] not in new]
        write_rows(folder / f"{split}.old.csv", [row for row in kept if row["history"]])
        write_rows(folder / f"{split}.all.csv", rows[split])
    for name, wanted in (("new", True), ("old", False)):
        chosen = [row for row in rows["test"] if (row["item_id"] in new) == wanted]
        write_rows(folder / f"test.{name}.csv", chosen)
        counts[f"test_rows_{name}"] = len(chosen)
    return counts


def read_rows(path: Path) -> list[Row]:
    """Rows with ids as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {
                "user_id": row["user_id"],
                "history": [str(item) for item in ast.literal_eval(row["history_item_id"])],
                "item_id": row["item_id"],
            }
            for row in csv.DictReader(file)
        ]


def without(row: Row, new: set[str]) -> Row:
    """A row whose history has no new item."""
    return {**row, "history": [item for item in row["history"] if item not in new]}


def write_rows(path: Path, rows: list[Row]) -> None:
    """Rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["user_id", "history", "item_id"])
        writer.writeheader()
        writer.writerows(rows)


def write_config(folder: Path, name: str, data: dict[str, Any], **sections: Any) -> Path:
    """A configuration file."""
    path = folder / f"{name}.yaml"
    tree = {"output_dir": str(folder / name), "data": data, **sections}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def train(
    folder: Path,
    name: str,
    model: dict[str, Any],
    index: Path,
    rows: str,
    training: dict[str, Any] | None = None,
    texts: Path | None = None,
) -> Path:
    """Train the recipe on these rows with this index, unless that is done; with a file of items
    also on `text_neighbours`.
    """
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    data = {
        "index": str(index),
        **{split: str(folder / f"{split}.{rows}.csv") for split in ("train", "valid")},
    }
    tasks = recipe["tasks"]
    if texts:
        data["items"] = str(texts)
        tasks = {**tasks, "text_neighbours": None}
    sections = {
        **recipe,
        "tasks": tasks,
        "model": recipe["model"] | model,
        "training": recipe["training"] | (training or {}),
        "encoding": {"cache_dir": str(folder / "cache")},
        # The figures are the model's own.
        "rank": {"fit": "never"},
    }
    for replaced in ("output_dir", "data"):
        del sections[replaced]
    config = write_config(folder, name, data, **sections)
    if not (folder / name / "final_checkpoint").is_dir():
        sidtune("train", str(config))
    return folder / name


def assigned(folder: Path, shop: Path, old_index: Path, model: Path) -> Path:
    """The index of all items, which the model's folder then knows."""
    kept = folder / "assigned.json"
    if not kept.is_file():
        said = sidtune(
            *("sids", "assign", str(old_index), "--items", str(shop / f"{SHOP}.item.json")),
            *("--model", str(model), "--json"),
        )
        kept.write_text(said, encoding="utf-8")
    return Path(json.loads(kept.read_text(encoding="utf-8"))["index"])


def evaluate(folder: Path, model: Path) -> dict[str, dict[str, float]]:
    """Metrics by item of the test rows with a new target, and of the others."""
    found = {}
    for name in ("new", "old"):
        report = json.loads(
            sidtune(
                *("evaluate", str(model), "--rows", str(folder / f"test.{name}.csv")),
                *("--no-baselines", "--output", str(model / f"rows-{name}"), "--json"),
            )
        )
        metrics = report["rankers"]["model"]["item"]
        found[f"{name} target"] = {metric: metrics[metric]["value"] for metric in METRICS}
    return found


if __name__ == "__main__":
    main()
