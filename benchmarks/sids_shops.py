"""Compare ways to make SIDs on several shops by brief trainings, as `sidtune sids report --quick`.

A small model is trained for the same number of steps on every index of a shop and ranks the same
2,000 validation rows. Its figures are far below those of a full training, so that only the order of
the indexes says something. Finished trainings are kept in the folder.

    export SIDTUNE_DATA=folder
    python benchmarks/sids_shops.py --folder kept
    python benchmarks/sids_shops.py --folder kept --shops beauty --indexes published default
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from commands import sidtune
from sidtune.pipeline.quick import random_index, train_briefly

OUTCOME = Path(__file__).with_suffix(".json")
STEPS = 3_000
INDUSTRIAL = "amazon-industrial/Industrial_and_Scientific"
# Index by name, and the section `sids` that makes it.
INDEXES: dict[str, dict[str, Any]] = {
    "text": {},
    "text, balanced": {"quantizer": "balanced"},
    "text, product": {"quantizer": "product"},
    "co-occurrence": {"vectors": "co_occurrence"},
    "text and 0.5 co-occurrence": {"vectors": {"text": 1, "co_occurrence": 0.5}},
    "text and 1 co-occurrence": {"vectors": {"text": 1, "co_occurrence": 1}},
    "text and 2 co-occurrence": {"vectors": {"text": 1, "co_occurrence": 2}},
}
PUBLISHED, RANDOM = "published", "random"


def main() -> None:
    """Train what is not yet trained, and print and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="indexes and figures are kept")
    shops = ("industrial", "beauty", "instruments", "movielens")
    parser.add_argument("--shops", nargs="*", choices=shops, default=shops)
    parser.add_argument("--indexes", nargs="*", default=[PUBLISHED, RANDOM, *INDEXES])
    asked = parser.parse_args()
    folder: Path = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")).absolute()
    for shop in asked.shops:
        data, published = shop_of(shop, place, folder)
        for name in asked.indexes:
            kept = folder / f"{shop}-{name.replace(' ', '-').replace(',', '')}.json"
            if not kept.is_file():
                index = index_of(name, data, published, folder / shop)
                if index is None:
                    continue
                rows = {key: value for key, value in data.items() if key != "items"}
                work = Path(tempfile.mkdtemp())
                found = train_briefly(work / "run", {**rows, "index": str(index)}, STEPS)
                shutil.rmtree(work)
                kept.write_text(
                    json.dumps({"shop": shop, "index": name, **found}), encoding="utf-8"
                )
            print(told(json.loads(kept.read_text(encoding="utf-8"))), flush=True)
    every = [
        json.loads(kept.read_text(encoding="utf-8")) for kept in sorted(folder.glob("*-*.json"))
    ]
    OUTCOME.write_text(
        json.dumps({"steps": STEPS, "trained": every}, indent=1) + "\n", encoding="utf-8"
    )


def shop_of(shop: str, place: Path, folder: Path) -> tuple[dict[str, Any], Path | None]:
    """The section `data` of a shop, without an index, and its published index."""
    if shop == "industrial":
        rows = {name: str(place / f"amazon-industrial/{name}.csv") for name in ("train", "valid")}
        items = place / f"{INDUSTRIAL}.item.json"
        return {"items": str(items), **rows}, place / f"{INDUSTRIAL}.index.json"
    if shop == "movielens":
        tree = {
            "output_dir": str(folder / shop),
            "events": {"files": str(place / "movielens-small/ratings.csv"), "k_core": 5},
            "catalogue": {"file": str(place / "movielens-small/movies.csv")},
        }
        config = folder / "movielens.yaml"
        config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        made = Path(json.loads(sidtune("prepare", str(config), "--json"))["folder"])
        files = {"items": "catalogue.parquet", "interactions": "interactions.parquet"}
        return {name: str(made / file) for name, file in files.items()}, None
    name = shop.capitalize()
    source = place / ("amazon-beauty" if shop == "beauty" else shop)
    data = {"interactions": str(source / f"{name}.inter.json")}
    if shop == "beauty":
        attributes = json.loads((source / f"{name}.attributes.json").read_text(encoding="utf-8"))
        words = {i: {"title": " ".join(f"a{n}" for n in row)} for i, row in attributes.items()}
        (folder / "beauty.item.json").write_text(json.dumps(words), encoding="utf-8")
        data["items"] = str(folder / "beauty.item.json")
    return data, source / f"{name}.index.json"


def index_of(name: str, data: dict[str, Any], published: Path | None, output: Path) -> Path | None:
    """The file of an index; None where the shop has no such index."""
    if name == PUBLISHED:
        return published
    if name == RANDOM:
        index = index_of("co-occurrence", data, published, output)
        assert index is not None
        return random_index(index, output)
    texts = "co_occurrence" not in str(INDEXES[name].get("vectors")) or "text" in name
    if texts and "instruments" in str(output):
        return None
    config = output.parent / "sids.yaml"
    tree = {"output_dir": str(output), "data": data, "sids": INDEXES[name]}
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return Path(json.loads(sidtune("sids", str(config), "--json"))["index"])


def told(kept: dict[str, Any]) -> str:
    """A line of the table."""
    cells = []
    for metric in ("HR@10", "NDCG@10"):
        value, low, high = (kept[metric][name] for name in ("value", "low", "high"))
        cells.append(f"{metric} {value:.4f} ({low:.3f}–{high:.3f})")
    return f"{kept['shop']:<14}{kept['index']:<30}" + "   ".join(cells)


if __name__ == "__main__":
    main()
