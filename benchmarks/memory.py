"""Compare the memory that a dry run estimates with what training holds on this machine's CPU.

Every case has a process of its own. It reads its resident memory, loads the model, gives the
optimizer its state by a step with gradients of zero, runs the largest pass twice (the second adds
to the gradients of the first), and updates. The measured figure is the highest resident memory from
the first pass on, less that of the idle process. The base has random weights, a small vocabulary
and the layers of Qwen3; the data is a made-up shop.

The C library keeps freed blocks of a few megabytes for later, which tensors do not need. Most cases
make it return them at once (`MALLOC_MMAP_THRESHOLD_`), and two show what it keeps by default. The
goal is about the former.

    python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A process counts the memory of the one that started it as its own until it has more: this one
# stays small, and what is large is imported where it is needed.
if TYPE_CHECKING:
    from sidtune.inputs import Inputs

OUTCOME = Path(__file__).with_suffix(".json")
GIB, GOAL = 2**30, 0.15
SHAPES = {"102M": (1024, 8), "203M": (1024, 16)}
# Shape, tuning, gradient checkpointing, whether freed blocks are returned at once.
CASES = [
    ("102M", "full", False, True),
    ("102M", "full", True, True),
    ("102M", "lora", False, True),
    ("102M", "lora", True, True),
    ("102M", "frozen", False, True),
    ("102M", "frozen", True, True),
    ("203M", "full", False, True),
    ("102M", "full", False, False),
    ("102M", "frozen", False, False),
]
NAMES = ("shape", "tuning", "checkpointing", "returned")
# Blocks from so many bytes on are returned.
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
ITEMS, ROWS, LONGEST, MAX_TOKENS = 400, 2_000, 12, 512


def main() -> None:
    """Measure every case, print the table, and leave the JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        in_process("shop", Path(folder))
        print(f"{'case':<32}{'estimated':>10}{'measured':>10}{'error':>8}", flush=True)
        for case in CASES:
            found = in_process("case", Path(folder), *case)
            error = found["estimated"] / found["measured"] - 1
            rows.append({**dict(zip(NAMES, case, strict=True)), **found, "error": round(error, 4)})
            name = f"{case[0]} {case[1]}{' checkpointing' * case[2]}{'' if case[3] else ', kept'}"
            print(
                f"{name:<32}{found['estimated']:>10.2f}{found['measured']:>10.2f}{error:>+8.1%}",
                flush=True,
            )
    worst = max(abs(row["error"]) for row in rows if row["returned"])
    print(f"largest error {worst:.1%}; the goal is {GOAL:.0%}")
    OUTCOME.write_text(
        json.dumps({"unit": "GiB", "goal": GOAL, "worst": worst, "cases": rows}, indent=1) + "\n",
        encoding="utf-8",
    )


def in_process(*given: Any) -> dict[str, float]:
    """What a part reports that has a process to itself."""
    command = [sys.executable, __file__, "--part", *map(str, given)]
    environment = os.environ | (RETURNED if given[-1] is True else {})
    said = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, encoding="utf-8", env=environment
    ).stdout
    report: dict[str, float] = json.loads(said.splitlines()[-1])
    return report


def resident(name: str) -> int:
    """Bytes of `VmRSS` (now) or `VmHWM` (at most) of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def write_shop(folder: Path) -> dict[str, float]:
    """Items, index, rows and a base of each shape."""
    import numpy as np

    from sidtune.base.terminal import quiet_libraries
    from sidtune.model.new_base import create_base

    quiet_libraries()
    random = np.random.default_rng(0)
    codes = random.integers(0, 64, (ITEMS, 3)).tolist()
    names = [f"i{item}" for item in range(ITEMS)]
    titles = {name: {"title": f"Item {name} of the shop"} for name in names}
    sids = {
        name: [f"<{'abc'[level]}_{c}>" for level, c in enumerate(code)]
        for name, code in zip(names, codes, strict=True)
    }
    (folder / "items.json").write_text(json.dumps(titles), encoding="utf-8")
    (folder / "index.json").write_text(json.dumps(sids), encoding="utf-8")
    for split, rows in (("train", ROWS), ("valid", 50)):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for row in range(rows):
                items = random.choice(names, random.integers(2, LONGEST)).tolist()
                line = {"user_id": f"{split}{row}", "history": items[:-1], "item_id": items[-1]}
                file.write(json.dumps(line) + "\n")
    texts = ["A user's interactions, oldest first:\n\nThe next item is:\n", *map(str, titles)]
    for name, (hidden, layers) in SHAPES.items():
        create_base(folder / name, texts, hidden, layers, vocab=1_000)
    return {}


def inputs_of(folder: Path, shape: str, tuning: str, checkpointing: str) -> Inputs:
    """The configuration of a case."""
    from sidtune.base.terminal import quiet_libraries
    from sidtune.inputs import Inputs
    from sidtune.tasks.config_file import parse_config

    quiet_libraries()
    files = {"items": "items.json", "index": "index.json"}
    rows = {split: f"{split}.jsonl" for split in ("train", "valid")}
    tree = {
        "output_dir": str(folder / "run"),
        "model": {"base": str(folder / shape), "tuning": tuning},
        "data": {name: str(folder / file) for name, file in {**files, **rows}.items()},
        "tasks": {"sid_next": None},
        "encoding": {"cache_dir": str(folder / "cache")},
        "training": {
            "max_tokens": MAX_TOKENS,
            "gradient_checkpointing": checkpointing == "True",
            "precision": "fp32",
        },
    }
    return Inputs(parse_config(tree, "benchmark"))


def measure(folder: Path, *case: str) -> dict[str, float]:
    """Estimate and measurement of a case, in GiB."""
    import torch

    from sidtune.runs.output import Start
    from sidtune.training.arguments import training_arguments
    from sidtune.training.loss.label_loss import LabelLoss
    from sidtune.training.make_steps import make_steps
    from sidtune.training.memory.estimate import estimate
    from sidtune.training.memory.fit import largest_pass
    from sidtune.training.stage_model import begin, loaded

    inputs = inputs_of(folder, *case[:3])
    config, vocabulary = inputs.config, inputs.vocabulary
    arguments = training_arguments(config)
    tasks = inputs.mixture.train()
    idle = resident("VmRSS")
    model = loaded(config, inputs, arguments, outlined=False)
    begin(model, Start(), config, inputs, arguments)
    steps = make_steps(config, tasks, model, vocabulary, arguments)
    batch = largest_pass(steps, steps.layout.limit, 1)
    loss_module = LabelLoss(model, 1).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    # From here on, the highest resident memory is counted anew.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            loss, _ = loss_module(**batch.to(torch.device("cpu")))
        loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    measured = resident("VmHWM") - idle
    memory = estimate(config, inputs, batch, arguments.bf16, 1, "cpu")
    parts = ("weights", "gradients", "optimizer", "activations", "logits")
    return {
        "estimated": round(memory.total / GIB, 4),
        "measured": round(measured / GIB, 4),
        "tokens": memory.tokens,
        "threads": torch.get_num_threads(),
        **{part: round(getattr(memory, part) / GIB, 4) for part in parts},
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        part, folder, *case = sys.argv[2:]
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        report = write_shop(Path(folder)) if part == "shop" else measure(Path(folder), *case)
        print(json.dumps(report))
    else:
        main()
