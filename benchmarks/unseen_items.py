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

from commands import sidtune
from industrial import RECIPE, own_sids
from paired import compared, figures, run_folder

OUTCOME = Path(__file__).with_suffix(".json")
# Overrides of the recipe, by the name of the row; the task has 37% more examples.
ROWS: dict[str, tuple[str, ...]] = {
    "histories alone": (),
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
    if not (output / "final_checkpoint").is_dir():
        # The figures are the model's own.
        settings = [f"output_dir={output}", f"seed={seed}", "rank.fit=never"]
        sidtune("train", str(RECIPE), *own_sids(folder), *settings, *ROWS[name])
    if not figures(output, split):
        sidtune("evaluate", str(output), "--split", split, "--no-baselines")


def report(folder: Path, split: str) -> None:
    """Print what there is so far and write it as JSON."""
    rows = compared(folder, ROWS, split)
    kept = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    OUTCOME.write_text(json.dumps({**kept, split: rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
