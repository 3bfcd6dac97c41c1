"""What other settings than the defaults give the small models that sidtune trains from scratch.

Each shop is trained with its settings and with one change at a time, by several seeds, and every
change is compared with the first row of its shop by a paired bootstrap over the same validation
rows. The figures are the model's own, by item. Finished runs are kept in the folder and not
repeated; a run that was stopped goes on from its last checkpoint. Test rows are not read.

    export SIDTUNE_DATA=folder
    python benchmarks/defaults.py --folder kept                       # about three hours of a core
    python benchmarks/defaults.py --folder kept --shops industrial --seeds 1 2 3
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from commands import sidtune
from industrial import RECIPE, own_sids
from paired import compared, figures, run_folder

OUTCOME = Path(__file__).with_suffix(".json")
# Users of Musical Instruments that make shops of 40,000 and of 80,000 training targets.
USERS, MORE_USERS = 7500, 15_000


@dataclass(frozen=True)
class Shop:
    """A shop.

    Args:
        configured: makes its configuration in a folder: the file, and overrides of it.
        rows: further overrides, by name; the others are compared with the first.
    """

    configured: Callable[[Path], tuple[Path, list[str]]]
    rows: dict[str, tuple[str, ...]]


def industrial(folder: Path) -> tuple[Path, list[str]]:
    """Industrial and Scientific with the recipe's settings, SIDs of `sidtune sids` and the task
    `text_neighbours`.
    """
    return RECIPE, [*own_sids(folder), "tasks.text_neighbours={}"]


def some_of_instruments(folder: Path, count: int) -> tuple[Path, list[str]]:
    """So many users of Musical Instruments with LETTER's SIDs; sidtune chooses the settings."""
    shop = Path(os.environ["SIDTUNE_DATA"]) / "instruments"
    every = json.loads((shop / "Instruments.inter.json").read_text(encoding="utf-8"))
    users = sorted(every)
    random.Random(0).shuffle(users)
    rows = folder / "part.inter.json"
    part = {user: every[user] for user in sorted(users[:count])}
    rows.write_text(json.dumps(part), encoding="utf-8")
    config = folder / "shop.yaml"
    data = {"index": str(shop / "Instruments.index.json"), "interactions": str(rows)}
    config.write_text(yaml.safe_dump({"output_dir": str(folder), "data": data}), encoding="utf-8")
    return config, []


SHOPS = {
    "industrial": Shop(
        industrial,
        {
            "learning rate ends at 0": ("training.min_lr_ratio=0",),
            "learning rate ends at a tenth": (),
        },
    ),
    "part of instruments": Shop(
        partial(some_of_instruments, count=USERS),
        {
            "6 epochs": ("training.epochs=6",),
            "12 epochs": ("training.epochs=12",),
            "12 epochs, weight decay 1": ("training.epochs=12", "training.weight_decay=1.0"),
        },
    ),
    "half of instruments": Shop(
        partial(some_of_instruments, count=MORE_USERS),
        {
            "6 epochs": ("training.epochs=6", "training.min_lr_ratio=0.1"),
            "12 epochs, ends at 0": ("training.epochs=12", "training.min_lr_ratio=0"),
        },
    ),
}


def main() -> None:
    """Do what is not yet done, one run after another, and print the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="runs are kept here")
    parser.add_argument("--shops", nargs="*", choices=SHOPS, default=list(SHOPS), metavar="SHOP")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    asked = parser.parse_args()
    os.environ.setdefault("SIDTUNE_DATA", "../shared/data")
    for name in asked.shops:
        folder = asked.folder.absolute() / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for seed in asked.seeds:
            for row, settings in SHOPS[name].rows.items():
                run(SHOPS[name], row, settings, seed, folder)
                report(name, folder)


def run(shop: Shop, row: str, settings: tuple[str, ...], seed: int, folder: Path) -> None:
    """Train a row and evaluate it, unless that is done."""
    output = run_folder(folder, row, seed)
    if not (output / "final_checkpoint").is_dir():
        config, made = shop.configured(folder)
        # The figures are the model's own.
        own = (f"output_dir={output}", f"seed={seed}", "rank.fit=never")
        sidtune("train", str(config), *made, *own, *settings)
    if not figures(output, "valid"):
        sidtune("evaluate", str(output), "--split", "valid", "--no-baselines")


def report(name: str, folder: Path) -> None:
    """Print what there is of a shop and write it as JSON, beside the other shops."""
    rows = compared(folder, SHOPS[name].rows, "valid")
    kept = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    OUTCOME.write_text(json.dumps({**kept, name: rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
