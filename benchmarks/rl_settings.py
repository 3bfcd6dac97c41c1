"""What each setting of reinforcement changes, beside the recipe's own.

Every row goes on from the same finished run, one of `recipes/amazon-industrial-rl.yaml` or another,
is evaluated on all validation rows, the model alone, and is compared with its start by `sidtune
compare` (paired bootstrap). Finished rows are kept in the folder and not repeated; a row that was
stopped goes on from its last checkpoint. The JSON has the rows of each start by its name.

    export SIDTUNE_DATA=folder
    START="--start runs/amazon-industrial-sft --name published-1 --folder kept/published-1"
    python benchmarks/rl_settings.py $START
    python benchmarks/rl_settings.py $START --rows recipe
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import yaml

from commands import sidtune

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "amazon-industrial-rl.yaml"
OUTCOME = Path(__file__).with_suffix(".json")
METRICS = ("HR@1", "HR@10", "NDCG@10", "HR@50")
# Settings of `rl` in place of the recipe's, by the name of the row.
ROWS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "beta 0": {"beta": 0},
    "beta 1e-2": {"beta": 1e-2},
    "beta 1e-1": {"beta": 1e-1},
    "rule and ranking": {"rewards": {"rule": 1, "ranking": 1}},
    "rule and 0.5 prefix": {"rewards": {"rule": 1, "prefix": 0.5}},
    "prefix": {"rewards": {"prefix": 1}},
    "rule and 0.5 semantic": {"rewards": {"rule": 1, "semantic": 0.5}},
    "add_target": {"add_target": True},
    "hint 1": {"hint": 1},
    "hint 2": {"hint": 2},
    "first level 0.5": {"level_weights": [0.5]},
    "first level 2": {"level_weights": [2]},
    "updates 2": {"updates": 2},
    "updates 4": {"updates": 4},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 1.5": {"temperature": 1.5},
    "keep_start 0.2": {"keep_start": 0.2},
    "keep_start 0.6": {"keep_start": 0.6},
    "over allowed": {"over": "allowed"},
}


def main() -> None:
    """Do what is not yet done, one row after another, and print the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", type=Path, required=True, help="the finished run")
    parser.add_argument("--name", required=True, help="of the start, in the JSON")
    parser.add_argument("--folder", type=Path, required=True, help="the start's runs are kept here")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    asked = parser.parse_args()
    os.environ.setdefault("SIDTUNE_DATA", "../shared/data")
    start, folder = asked.start.absolute(), asked.folder.absolute()
    evaluated(start)
    for name in asked.rows:
        run(name, start, folder)
        report(start, folder, asked.name)


def run(name: str, start: Path, folder: Path) -> None:
    """Reinforce with the settings of a row, and evaluate, unless that is done."""
    output = folder / name.replace(" ", "-")
    if not (output / "final_checkpoint").is_dir():
        # The configuration of the start, so that index, data and seed are its own.
        tree = yaml.safe_load((start / "config.yaml").read_text(encoding="utf-8"))
        recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
        tree["output_dir"] = str(start)
        tree["rl"] = {**recipe["rl"], **ROWS[name], "output_dir": str(output)}
        tree["rank"] = {"fit": "never"}
        config = folder / f"{output.name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        sidtune("rl", str(config))
    evaluated(output)


def evaluated(output: Path) -> None:
    """Evaluate a run on validation rows, unless that is done."""
    if not (output / "evaluation" / "valid.json").is_file():
        sidtune("evaluate", str(output), "--split", "valid", "--no-baselines")


def report(start: Path, folder: Path, start_name: str) -> None:
    """Print what there is so far and write it as JSON."""
    done = [name for name in ROWS if (folder / name.replace(" ", "-") / "evaluation").is_dir()]
    runs = [str(folder / name.replace(" ", "-")) for name in done]
    compared = json.loads(sidtune("compare", str(start), *runs, "--split", "valid", "--json"))
    rows = []
    for name, comparison in zip(done, compared, strict=True):
        changes = {
            change["metric"]: {key: change[key] for key in ("other", "difference", "low", "high")}
            for change in comparison["differences"]
            if change["level"] == "item" and change["metric"] in METRICS
        }
        rows.append({"row": name, "rl": ROWS[name], "rows": comparison["rows"], **changes})
        cells = [
            f"{metric} {found['other']:.4f} {found['difference']:+.4f}"
            f" ({found['low']:+.4f}, {found['high']:+.4f})"
            for metric, found in changes.items()
        ]
        print(f"{name:<24}" + "  ".join(cells), flush=True)
    kept = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    OUTCOME.write_text(json.dumps({**kept, start_name: rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
