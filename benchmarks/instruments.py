"""Train a small model from scratch on Musical Instruments, and compare it with baselines and
published figures.

Trains `recipes/instruments.yaml` once per seed through the command line, and ranks all items for
every test user (leave-one-out). The settings were chosen on validation. The test users are ranked
by the model that the run itself chose. Hits are counted twice: as in the published figures, and
with the history excluded from the lists, because no user here has an item twice. SASRec needs
`sidtune[baselines]` and is tuned twice, in less than an hour of one core each. If it is not
installed, its earlier figures are kept.

    export SIDTUNE_DATA=folder
    python benchmarks/instruments.py
    python benchmarks/instruments.py --seeds 2 --folder kept   # other seeds keep their figures
    python benchmarks/instruments.py --seeds   # only the baselines
    python benchmarks/instruments.py training.epochs=16 --seeds 1   # experiment: writes no JSON
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "instruments.yaml"
# The recipe gives the options of its base in the command that makes it.
BASE_OPTIONS = re.findall(r"sidtune new-model \S+(.*)", RECIPE.read_text(encoding="utf-8"))[
    0
].split()
SETTINGS = {"base": BASE_OPTIONS, "recipe": yaml.safe_load(RECIPE.read_text(encoding="utf-8"))}
OUTCOME = Path(__file__).with_suffix(".json")
METRICS = ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10")
# Folders of evaluations, and their options.
PLAIN, LEFT_OUT = "evaluation", "evaluation-left-out"
EVALUATIONS = {PLAIN: [], LEFT_OUT: ["--exclude-history"]}
# How targets are counted: in which evaluation, and at which level.
BY_ITEM = "by item"
COUNTS = {
    BY_ITEM: (PLAIN, "item"),
    "by SID": (PLAIN, "sid"),
    "by item, history excluded": (LEFT_OUT, "item"),
}
# HR@5, HR@10, NDCG@5 and NDCG@10, full ranking: the last from an independent reproduction, the
# others as LC-Rec's paper (Zheng et al., 2024) has them.
PUBLISHED = {
    "SASRec": (0.0751, 0.0947, 0.0627, 0.0690),
    "S3-Rec": (0.0863, 0.1136, 0.0626, 0.0714),
    "TIGER": (0.0863, 0.1064, 0.0738, 0.0803),
    "LC-Rec, LLaMA 7B": (0.1002, 0.1220, 0.0856, 0.0926),
    "Qwen2.5-3B, fine-tuned": (0.0932, 0.1094, 0.0771, 0.0823),
}


@dataclass(frozen=True)
class Spent:
    """What a command took: seconds on the clock, seconds of all cores, and GiB at its peak."""

    seconds: float
    core_seconds: float
    gib: float


def main() -> None:
    """Run the seeds that are asked for, print the table of all, and leave the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[1, 2, 3], help="none for only the baselines"
    )
    parser.add_argument(
        "--folder", type=Path, help="keep base and runs here; finished runs are not repeated"
    )
    parser.add_argument(
        "overrides", nargs="*", help="section.key=value, for an experiment: the JSON is not written"
    )
    asked = parser.parse_args()
    # The recipe reads it.
    os.environ.setdefault("SIDTUNE_DATA", "../shared/data")
    with tempfile.TemporaryDirectory() as passing:
        folder = asked.folder or Path(passing)
        refuse_other_runs(folder, asked.overrides)
        seeds = {str(seed): run(seed, folder, asked.overrides) for seed in asked.seeds}
        if asked.overrides:
            print_table(seeds, {})
        else:
            kept = kept_outcome()
            seeds = dict(sorted((kept.get("seeds", {}) | seeds).items()))
            earlier = kept.get("baselines", {})
            others = {
                count: earlier.get(count, {}) | values
                for count, values in run_baselines(folder).items()
            }
            OUTCOME.write_text(
                json.dumps(outcome(seeds, others), indent=1) + "\n", encoding="utf-8"
            )
            print_table(seeds, others)


def run(seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train with one seed and evaluate; the figures of all test users."""
    base, output = folder / "base", folder / f"seed-{seed}"
    if not base.exists():
        sidtune("new-model", str(base), *BASE_OPTIONS)
    settings = [
        f"model.base={base}",
        f"output_dir={output}",
        f"encoding.cache_dir={folder / 'cache'}",
        f"seed={seed}",
        # The figures are the model's own.
        "rank.fit=never",
    ]
    spent = {
        "train": once(output / "train.spent.json", ["train", str(RECIPE), *settings, *overrides])
    }
    spent |= rank(output, ["evaluate", str(output)])
    return {count: rankers["model"] for count, rankers in figures(output).items()} | spent


def run_baselines(folder: Path) -> dict[str, Any]:
    """By how they are counted: figures of the simple baselines, and of SASRec where its library is
    there.
    """
    simple = [] if find_spec("replay") else ["--simple"]
    if simple:
        print(
            "SASRec is not measured again and keeps its earlier figures: it needs"
            " sidtune[baselines]"
        )
    output = folder / "-".join(("baselines", *simple))
    rank(output, ["baselines", str(RECIPE), *simple])
    return figures(output)


def rank(output: Path, command: list[str]) -> dict[str, dict[str, float]]:
    """Do every evaluation into a folder of its own; what each took."""
    return {
        name: once(
            output / f"{name}.spent.json", [*command, "--output", str(output / name), *options]
        )
        for name, options in EVALUATIONS.items()
    }


def refuse_other_runs(folder: Path, overrides: list[str]) -> None:
    """Let a folder hold runs of one recipe and the same overrides: what is kept there is taken for
    theirs.
    """
    file, given = folder / "settings.json", {**SETTINGS, "overrides": overrides}
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != given:
        raise SystemExit(f"{folder} holds runs with other settings: choose another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(given, indent=1) + "\n", encoding="utf-8")


def once(kept: Path, command: list[str]) -> dict[str, float]:
    """Run a command and keep what it took, or find that again."""
    if not kept.exists():
        spent = sidtune(*command)
        kept.write_text(json.dumps(vars(spent)), encoding="utf-8")
    found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def figures(output: Path) -> dict[str, Any]:
    """The metrics of every ranker, by how they are counted; the folder holds those of the
    evaluations.
    """
    found: dict[str, Any] = {}
    for count, (folder, level) in COUNTS.items():
        rankers = json.loads((output / folder / "test.json").read_text(encoding="utf-8"))["rankers"]
        found[count] = {
            name: {metric: values[level][metric] for metric in METRICS}
            for name, values in rankers.items()
        }
    return found


def sidtune(*arguments: str) -> Spent:
    """Run a command, in full view."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "sidtune", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"sidtune {arguments[0]} failed")
    unit = 2**20 if platform.system() == "Linux" else 2**30
    return Spent(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def kept_outcome() -> dict[str, Any]:
    """The JSON, if it is of the same recipe and base."""
    kept: dict[str, Any] = (
        json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    )
    return kept if SETTINGS.items() <= kept.items() else {}


def outcome(seeds: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """What the JSON holds."""
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    given = {"machine": machine, "torch": torch.__version__, **SETTINGS}
    return {**given, "seeds": seeds, "baselines": others, "published": PUBLISHED}


def print_table(seeds: dict[str, Any], others: dict[str, Any]) -> None:
    """Every seed, their mean, the baselines, and what has been published."""
    for count in COUNTS:
        print_row(count, METRICS)
        for seed, result in seeds.items():
            print_row(f"seed {seed}", map(with_interval, result[count].values()))
        if len(seeds) > 1:
            columns = [
                [result[count][metric]["value"] for result in seeds.values()] for metric in METRICS
            ]
            print_row(
                f"mean of {len(seeds)} seeds",
                (f"{mean(column):.4f} (s.d. {stdev(column):.4f})" for column in columns),
            )
        for name, result in others.get(count, {}).items():
            print_row(name, map(with_interval, result.values()))
        for name, values in PUBLISHED.items() if count == BY_ITEM else ():
            print_row(f"{name}, published", ("", *(f"{value:.4f}" for value in values)))
        print()
    if seeds:
        spent = [result["train"] for result in seeds.values()]
        minutes, gib = (mean(entry[name] for entry in spent) for name in ("seconds", "gib"))
        print(
            f"training: {minutes / 60:.0f} minutes and {gib:.1f} GiB per seed, on {os.cpu_count()}"
            " shared cores"
        )


def print_row(name: str, cells: Iterable[str]) -> None:
    """A line of the table."""
    print(f"{name:<34}" + "".join(f"{cell:>24}" for cell in cells))


def with_interval(cell: dict[str, float]) -> str:
    """A metric's value and its 95% interval."""
    return f"{cell['value']:.4f} ({cell['low']:.4f}–{cell['high']:.4f})"


if __name__ == "__main__":
    main()
