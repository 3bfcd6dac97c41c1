"""Measure what a pretrained base is worth: SmolLM2 135M on amazon-industrial, on a CPU.

    export SIDTUNE_DATA=folder
    python benchmarks/pretrained_base.py bases/smollm2-135m
    python benchmarks/pretrained.py --base bases/smollm2-135m --folder runs/pretrained

Each variant is trained for six epochs of `sid_sequence`, and of the tasks it names, on the
published SIDs, and decodes the same validation rows; the ranker is fitted on them by cross-fitting
over users. So every line has HR@10, NDCG@10 and HR@50 of the model alone, and what the model adds
to a ranker that has transitions and texts already (HR@10 with it less without, paired over rows).
Test rows are not read.

A run that was stopped goes on where it was; finished ones are not repeated. Six epochs of
`sid_sequence` take about half an hour of one core with bfloat16 instructions, and three times that
without; other tasks take longer.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from commands import sidtune

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "smollm2-cpu.yaml"
OUTCOME = Path(__file__).with_suffix(".json")
PREDICTION = (
    "Written down before: after six epochs of sid_sequence the pretrained weights are above the"
    " same shape from random weights, which has too many parameters for 11,000 targets; LoRA is"
    " level with full tuning; frozen is behind; item_feature adds a little; none is above the small"
    " recipe from scratch (HR@10 .126), which has 24 epochs of both directions."
)
SHARED = {
    "tasks": {"sid_sequence": None},
    "training": {"epochs": 6, "batch_size": 32, "warmup": 0.1},
    "eval": {
        "every": 0.25,
        "max_rows": 500,
        "metric": "ndcg@10",
        "ranking": {"every": 1, "sample": 500, "beams": 10},
    },
}
METRICS = {"HR@10": "hr", "NDCG@10": "ndcg", "HR@50": "far"}


@dataclass(frozen=True)
class Variant:
    """One line of the table: overrides of the recipe."""

    name: str
    settings: tuple[str, ...]


FULL = ("model.tuning=full", "training.learning_rate=2e-4")
LORA = ("model.tuning=lora", "training.learning_rate=1e-3")
LORA_32 = (*LORA, "model.lora.rank=32")
VARIANTS = (
    Variant("pretrained, full", FULL),
    Variant(
        "random weights, full",
        ("model.tuning=full", "training.learning_rate=6e-4", "model.from_scratch=true"),
    ),
    Variant("pretrained, LoRA of rank 32", LORA_32),
    Variant("pretrained, LoRA of rank 8", (*LORA, "model.lora.rank=8")),
    Variant("pretrained, LoRA of rank 128", (*LORA, "model.lora.rank=128")),
    Variant("pretrained, frozen", ("model.tuning=frozen", "training.learning_rate=5e-3")),
    Variant("LoRA, both directions", (*LORA_32, "tasks.sid_sequence_reversed={}")),
    Variant("LoRA, item_feature", (*LORA_32, "tasks.item_feature={weight: 0.25}")),
    Variant("LoRA, with titles", (*LORA_32, "tasks.fusion={weight: 0.25}")),
    Variant("LoRA, title_to_sid", (*LORA_32, "tasks.title_to_sid={weight: 0.25}")),
    Variant("LoRA, title_next", (*LORA_32, "tasks.title_next={weight: 0.25}")),
    Variant("LoRA, half the rate", (*LORA_32[::2], "training.learning_rate=5e-4")),
    Variant("pretrained, full, half the rate", (*FULL[:1], "training.learning_rate=1e-4")),
    Variant("pretrained, full, twice the rate", (*FULL[:1], "training.learning_rate=4e-4")),
)


def main() -> None:
    """Run what is asked for, print the table, and leave the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--base", type=Path, required=True, help="of pretrained_base.py")
    parser.add_argument("--folder", type=Path, required=True, help="for the runs")
    parser.add_argument("--only", nargs="+", choices=names, metavar="VARIANT", default=names)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=2000, help="validation rows that are decoded")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    kept = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    config = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    config["model"] = {"base": str(asked.base.resolve())}
    config |= SHARED | {"rank": {"rows": asked.rows}}
    file = asked.folder / "shared.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    lines: dict[str, Any] = kept.get("lines", {})
    for variant in VARIANTS:
        if variant.name in asked.only:
            found = measure(variant, file, asked.folder, asked.seed)
            lines.setdefault(variant.name, {"settings": variant.settings})
            seeds = lines[variant.name].setdefault("seeds", {})
            # A finished run keeps the minutes that it took.
            seeds[str(asked.seed)] = seeds.get(str(asked.seed), {}) | found
            keep(kept | {"rows": asked.rows, "lines": lines})
    print_table(lines)


def keep(outcome: dict[str, Any]) -> None:
    """Write the JSON."""
    outcome |= {"machine": platform.machine(), "prediction": PREDICTION, "shared": SHARED}
    OUTCOME.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")


def run_folder(variant: Variant, folder: Path, seed: int) -> Path:
    """Where a variant's run with a seed lies."""
    return folder / f"{''.join(c if c.isalnum() else '-' for c in variant.name)}-{seed}"


def measure(variant: Variant, file: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Train with the ranker at the end, where that is not done yet, and read its table."""
    run = run_folder(variant, folder, seed)
    took = {}
    if not (run / "ranker.json").exists():
        began = time.monotonic()
        sidtune("train", str(file), f"output_dir={run}", f"seed={seed}", *variant.settings)
        took["minutes"] = round((time.monotonic() - began) / 60, 1)
    lines = json.loads((run / "ranker.json").read_text(encoding="utf-8"))["lines"]
    figures = {
        name: {metric: lines[name][key]["value"] for metric, key in METRICS.items()}
        for name in ("model", "ranker", "without model")
    }
    return figures | {"model adds": lines["without model"]["change"]} | took


def print_table(lines: dict[str, Any]) -> None:
    """All lines that were ever measured, by variant and seed."""
    print(f"{'variant':36}{'seed':>5}" + "".join(f"{name:>9}" for name in METRICS) + "  adds")
    for name, line in lines.items():
        for seed, found in line["seeds"].items():
            model = "".join(f"{found['model'][metric]:9.4f}" for metric in METRICS)
            adds = found["model adds"]
            interval = f"{adds['value']:+.4f} ({adds['low']:+.4f} to {adds['high']:+.4f})"
            print(f"{name:36}{seed:>5}{model}  {interval}")


if __name__ == "__main__":
    main()
