"""A tiny shop, its files and a configuration that trains on them in seconds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from sidtune.files.row_files import row_batches
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from tests.tiny_models import make_base

TITLES = [
    "Blue Mug, 12 oz",
    "Red Tent",
    "Gas Stove",
    "Oak Shelf",
    "Wool Sock",
    "Tin Whistle",
    "Jam Jar",
    "Ink Pen",
]


def write_shop(folder: Path, users: int = 12) -> dict[str, str]:
    """Write items, index and MiniOneRec rows; the last two items share a SID. Returns the `data`
    section.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n = len(TITLES)
    items = {
        str(i): {"title": title, "description": f"A {title.lower()}."}
        for i, title in enumerate(TITLES)
    }
    index = {str(i): [f"<a_{i % 3}>", f"<b_{i // 3}>", f"<c_{min(i, n - 2)}>"] for i in range(n)}
    index[str(n - 1)] = index[str(n - 2)]
    (folder / "shop.item.json").write_text(json.dumps(items))
    (folder / "shop.index.json").write_text(json.dumps(index))
    for split, extra in (("train", 0), ("valid", 1), ("test", 2)):
        rows = []
        for user in range(users):
            walk = [(user * 3 + step * (1 + user % 2)) % n for step in range(4 + user % 3 + extra)]
            cuts = range(1, len(walk) - 1) if split == "train" else [len(walk) - 1]
            rows += [(f"u{user}", walk[:cut], walk[cut]) for cut in cuts]
        write_rows(folder / f"{split}.csv", rows, index)
    names = {"items": "shop.item.json", "index": "shop.index.json"}
    names |= {split: f"{split}.csv" for split in ("train", "valid", "test")}
    return {name: str(folder / file) for name, file in names.items()}


def read_rows(path: Path) -> pa.Table:
    """All rows of a small file as a table of schema `ROWS`."""
    return pa.concat_tables(row_batches(path))


def write_rows(
    path: Path, rows: list[tuple[str, list[int], int]], index: dict[str, list[str]]
) -> None:
    """Rows in MiniOneRec's columns."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "user_id",
                "history_item_title",
                "item_title",
                "history_item_id",
                "item_id",
                "history_item_sid",
                "item_sid",
            ]
        )
        for user, history, target in rows:
            titles, sids = [TITLES[i] for i in history], ["".join(index[str(i)]) for i in history]
            aim = "".join(index[str(target)])
            writer.writerow([user, titles, TITLES[target], history, target, sids, aim])


def tiny_tree(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """A configuration tree over a fresh shop and a fresh base, with sections merged in."""
    data = write_shop(folder / "data")
    base = folder / "base"
    if not base.exists():
        make_base(base)
    tree: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "seed": 1,
        "model": {"base": str(base)},
        "data": data,
        "encoding": {"cache_dir": str(folder / "cache"), "cutoff_len": 200},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "warmup": 2},
        "eval": {"every": 5, "patience": None},
        # Few tests are about the ranker, and fitting it takes a second.
        "rank": {"fit": "never"},
        # A report takes seconds.
        "logging": {"report": False},
    }
    for name, section in sections.items():
        tree[name] = (
            {**tree[name], **section}
            if isinstance(tree.get(name), dict) and name != "tasks"
            else section
        )
    return tree


def tiny_config(folder: Path, **sections: Any) -> Config:
    """The tree, checked."""
    return parse_config(tiny_tree(folder, **sections), "test")
