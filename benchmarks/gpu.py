"""Compare training speed on one CUDA GPU: Transformers' Trainer, TRL and sidtune's layouts, for the
shapes of Qwen2.5.

The models have the shapes of Qwen2.5-0.5B and 1.5B with their 151,936 vocabulary rows, and random
weights. They train the default mixture over a made-up shop in bfloat16 autocast. The contestants
run one after the other, each in its own process, because together they do not fit on the GPU. The
script also compares their losses. First come the checks of `gpu_checks.py`.

For full tuning, MFU is (6 P T + 6 V H L) / (seconds × peak): P parameters of the blocks, T computed
tokens without padding, V vocabulary rows of width H, L labels, and the dense bfloat16 peak of the
data sheet. Attention is not counted. Frozen tuning computes no gradient of the weights, so 4
replaces 6.

    python benchmarks/gpu.py [--out FILE] [--smoke] [--checks]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from contestants import CONTESTANTS, Job, Report, Tuning, config_of
from gpu_checks import run_checks
from side_by_side import MICRO_BATCH, Worker
from sidtune.base.terminal import quiet_libraries
from sidtune.commands.demo_shop import write_demo_data
from sidtune.data.catalogue import read_texts
from sidtune.inputs import Inputs
from sidtune.model.new_base import create_base

QWEN_ROWS = 151_936
# Hidden size, size of the MLP, blocks, heads, key and value heads: the models' own configuration
# files.
SHAPES = {
    "0.5B": (896, 4864, 24, 14, 2),
    "1.5B": (1536, 8960, 28, 12, 2),
    "smoke": (64, 128, 2, 2, 1),
}
BATCH, WARM_UP, ROUNDS, USERS = 128, 2, 4, 2000
# Dense bfloat16 in TFLOP/s, NVIDIA's data sheets.
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0}
# bfloat16 rounds a loss near 10 by hundredths; a wrong mask moves it by more.
TOLERANCE = 0.02
OUTCOME = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Setting:
    """Where and what: device, folder of the shop and the bases, and examples per step."""

    device: Literal["cpu", "cuda"]
    folder: Path
    batch: int


def main() -> int:
    """Measure, check, and leave the JSON; 1 where something is wrong."""
    options = parse_arguments()
    quiet_libraries()
    if options.smoke:
        # Nothing but the CPU, whatever the machine has.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not options.smoke and not torch.cuda.is_available():
        print("No CUDA device found. benchmarks/gpu.py --smoke runs a small test on the CPU.")
        return 1
    device: Literal["cpu", "cuda"] = "cpu" if options.smoke else "cuda"
    outcome: dict[str, Any] = {"machine": machine(device), "results": {}}
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(device, Path(folder), 16 if options.smoke else BATCH)
        write_demo_data(setting.folder / "shop", users=60 if options.smoke else USERS)
        outcome["checks"] = run_checks(shop_files(setting), setting.folder / "checks")
        failed = "FAIL" in outcome["checks"].values()
        if options.checks:
            return int(failed)
        wrong = int(failed)
        for shape, tuning in product(
            ["smoke"] if options.smoke else ["0.5B", "1.5B"], get_args(Tuning)
        ):
            rows = compare(setting, shape, tuning)
            wrong += print_rows(f"{shape}, {tuning}", rows)
            outcome["results"][f"{shape}, {tuning}"] = rows
            options.out.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    return int(wrong > 0)


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUTCOME, help="output JSON file")
    parser.add_argument(
        "--smoke", action="store_true", help="test the script on the CPU with a tiny shape"
    )
    parser.add_argument(
        "--checks", action="store_true", help="make the checks, and measure nothing"
    )
    return parser.parse_args()


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__, "peak TFLOP/s": peak(name)}


def peak(name: str) -> float | None:
    """The data sheet's rate for a device, if known here."""
    return next((rate for known, rate in PEAKS.items() if known in name), None)


def shop_files(setting: Setting) -> dict[str, str]:
    """The made-up shop, by configuration key."""
    names = {
        "items": "*.item.json",
        "index": "*.index.json",
        "train": "train.csv",
        "valid": "valid.csv",
    }
    return {
        name: str(next((setting.folder / "shop").glob(pattern))) for name, pattern in names.items()
    }


def compare(setting: Setting, shape: str, tuning: Tuning) -> dict[str, dict[str, Any]]:
    """Rows by contestant, one process after the other."""
    job = Job(
        contestant="bucketed",
        tuning=tuning,
        batch=setting.batch,
        micro_batch=MICRO_BATCH,
        steps=WARM_UP + ROUNDS,
        base=str(base_of(setting, shape)),
        data=shop_files(setting),
        tasks=(),
        cache=str(setting.folder / "cache"),
        device=setting.device,
    )
    Inputs(config_of(job)).mixture.train()
    missing = (
        importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None
    )
    rows: dict[str, dict[str, Any]] = {}
    for contestant in CONTESTANTS:
        if contestant != "trl" or not missing:
            reports = run(setting, replace(job, contestant=contestant))
            rows[contestant] = figures(reports, shape, tuning, setting.device)
            rows[contestant]["x stock"] = (
                rows[contestant]["examples per second"] / rows["stock"]["examples per second"]
            )
    return rows


def run(setting: Setting, job: Job) -> list[Report]:
    """The steps of one contestant."""
    worker = Worker(job, setting.folder / f"{job.contestant}.log")
    try:
        worker.ready()
        return [worker.step() for _ in range(job.steps)]
    finally:
        worker.close()


def base_of(setting: Setting, shape: str) -> Path:
    """A folder with a small tokenizer, and random weights of the shape in bfloat16."""
    folder = setting.folder / f"base-{shape}"
    if not folder.exists():
        hidden, mlp, blocks, heads, shared_heads = SHAPES[shape]
        create_base(folder, read_texts(Path(shop_files(setting)["items"])), vocab=2000)
        config = AutoConfig.for_model(
            "qwen2",
            vocab_size=QWEN_ROWS,
            hidden_size=hidden,
            intermediate_size=mlp,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            num_key_value_heads=shared_heads,
            tie_word_embeddings=True,
        )
        set_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def figures(reports: Sequence[Report], shape: str, tuning: Tuning, device: str) -> dict[str, Any]:
    """Means over the timed steps, and the losses of all."""
    timed = reports[WARM_UP:]
    seconds = statistics.median(report.seconds for report in timed)
    tokens = statistics.mean(report.tokens for report in timed)
    useful = tokens - statistics.mean(report.padding for report in timed)
    labels = statistics.mean(report.labels for report in timed)
    rate = peak(torch.cuda.get_device_name()) if device == "cuda" else None
    flops = (6 if tuning == "full" else 4) * (
        block_parameters(shape) * useful + QWEN_ROWS * SHAPES[shape][0] * labels
    )
    return {
        "seconds per step": seconds,
        "examples per second": statistics.mean(report.examples for report in timed) / seconds,
        "tokens computed": tokens,
        "padding": 1 - useful / tokens,
        "peak GiB": max(report.peak_gib for report in timed),
        "MFU": flops / (seconds * rate * 1e12) if rate else None,
        "losses": [report.loss for report in reports],
    }


def block_parameters(shape: str) -> int:
    """Weights of the blocks: query, key, value and output projections and the three of the MLP."""
    hidden, mlp, blocks, heads, shared_heads = SHAPES[shape]
    attention = 2 * hidden * hidden + 2 * hidden * (hidden // heads) * shared_heads
    return blocks * (attention + 3 * hidden * mlp)


def print_rows(name: str, rows: dict[str, dict[str, Any]]) -> int:
    """The table; how many layouts of the usual loop's plan show other losses than it."""
    heads = (
        "seconds per step",
        "examples per second",
        "x stock",
        "tokens computed",
        "padding",
        "peak GiB",
        "MFU",
    )
    print(f"\n{name}\n{'':<14}" + "".join(f"{head:>19}" for head in heads))
    wrong = 0
    for contestant, row in rows.items():
        cells = (
            f"{row[head]:>19,.3f}" if row[head] is not None else f"{'–':>19}" for head in heads
        )
        differs = contestant not in ("trl", "tree by user") and any(
            abs(mine - usual) > TOLERANCE
            for mine, usual in zip(row["losses"], rows["stock"]["losses"], strict=True)
        )
        wrong += differs
        print(
            f"{contestant:<14}" + "".join(cells) + ("  LOSSES DIFFER" if differs else ""),
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
