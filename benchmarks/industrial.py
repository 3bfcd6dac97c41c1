"""The recipe of Industrial and Scientific on SIDs of `sidtune sids`, as benchmarks train it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import yaml

from commands import sidtune

RECIPE = Path(__file__).parents[1] / "recipes" / "amazon-industrial-sids.yaml"


def own_sids(folder: Path) -> list[str]:
    """Overrides of the recipe; index and base are made in the folder where they are missing."""
    shop = Path(os.environ["SIDTUNE_DATA"]) / "amazon-industrial"
    items = str(shop / "Industrial_and_Scientific.item.json")
    base = folder / "base"
    if not base.exists():
        sidtune("new-model", str(base))
    config = folder / "sids.yaml"
    tree = {"output_dir": str(folder), "data": {"items": items, "train": str(shop / "train.csv")}}
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    index = json.loads(sidtune("sids", str(config), "--json"))["index"]
    return [
        *(f"data.index={index}", f"data.items={items}", "data.unique_sids=false"),
        f"model.base={base}",
    ]
