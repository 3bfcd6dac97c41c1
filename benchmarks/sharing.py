"""Count the tokens per example before and after sharing prefixes, on two files of
amazon-industrial.

Both files are used as training rows, with the default mixture, for `group_by: example` and `user`
and two batch sizes. In the rebuilt training rows, histories grow from a user's first item and never
slide. In the validation rows, a tenth of the histories slide, because they are capped at ten items,
and most users have one row.

    SIDTUNE_DATA=folder python benchmarks/sharing.py
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from side_by_side import FILES
from sidtune.base.terminal import quiet_libraries
from sidtune.data.catalogue import read_texts
from sidtune.inputs import Inputs
from sidtune.model.load import load_model
from sidtune.model.new_base import create_base
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.training.arguments import training_arguments
from sidtune.training.make_steps import make_steps

STEPS = 40
OUTCOME = Path(__file__).with_suffix(".json")


def main() -> None:
    """Print the table and leave the JSON."""
    quiet_libraries()
    data = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")) / "amazon-industrial"
    results: dict[str, dict[str, float]] = {}
    heads = ("tokens", "shared", "padded", "passes", "ratio", "ms to plan")
    print(f"{'per example: file, group_by, batch':<36}" + "".join(f"{head:>11}" for head in heads))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        create_base(base, read_texts(data / "Industrial_and_Scientific.item.json"))
        for train, group_by, batch in product(
            ("train.csv", "valid.csv"), ("example", "user"), (64, 256)
        ):
            row = measured(config_of(data, train, base, Path(folder), group_by, batch))
            results[f"{train}, {group_by}, {batch}"] = row
            cells = (f"{row[head]:>11.{0 if head == 'tokens' else 2}f}" for head in heads)
            print(f"{f'{train}, {group_by}, {batch}':<36}" + "".join(cells), flush=True)
    OUTCOME.write_text(
        json.dumps({"steps": STEPS, "results": results}, indent=1) + "\n", encoding="utf-8"
    )


def config_of(
    data: Path, train: str, base: Path, folder: Path, group_by: str, batch: int
) -> Config:
    """The default mixture over one of the files."""
    files = FILES | {"train": train}
    tree: dict[str, Any] = {
        "output_dir": "unused",
        "model": {"base": str(base)},
        "data": {name: str(data / file) for name, file in files.items()},
        "encoding": {"cache_dir": str(folder / "cache")},
        "training": {"batch_size": batch, "group_by": group_by},
    }
    return parse_config(tree, "benchmark")


def measured(config: Config) -> dict[str, float]:
    """Figures per example, means over the first steps; `ms to plan` is for a whole step, reading it
    included.
    """
    inputs = Inputs(config)
    model = load_model(config.model, inputs.vocabulary, config.seed)
    steps = make_steps(
        config, inputs.mixture.train(), model, inputs.vocabulary, training_arguments(config)
    )
    examples = np.concatenate([steps.share(number) for number in range(STEPS)])
    began = time.perf_counter()
    batches = [batch for number in range(STEPS) for batch in steps[number]["micro_batches"]]
    seconds = time.perf_counter() - began
    tokens, shared = (
        int(steps.corpus.lengths[examples].sum()),
        sum(batch.tokens for batch in batches),
    )
    return {
        "tokens": tokens / len(examples),
        "shared": shared / len(examples),
        "padded": sum(batch.input_ids.size for batch in batches) / len(examples),
        "passes": len(batches) / STEPS,
        "ratio": tokens / shared,
        "ms to plan": 1000 * seconds / STEPS,
    }


if __name__ == "__main__":
    main()
