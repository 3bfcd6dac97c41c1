"""`sidtune sids report --quick`: a small model, trained for a minute or two on an index and on the
same SIDs dealt out at random.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sidtune.base.terminal import console
from sidtune.config.search import RankOptions
from sidtune.data.catalogue import read_catalogue
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.model.new_base import create_base
from sidtune.pipeline.defaults import Request, with_rows
from sidtune.tasks.config_file import parse_config, read_tree
from sidtune.tasks.sid_sequence import nested
from sidtune.templates import template_texts
from sidtune.training.train import train

SEED = 0
HIDDEN, LAYERS = 64, 2
STEPS, USERS_PER_STEP = 1_500, 32
# Users and validation rows that are drawn, so that time does not grow with the shop.
MOST_USERS, MOST_ROWS, BEAMS = 20_000, 2_000, 20
METRICS = ("HR@10", "NDCG@10")
# Keys of `data` that are read.
ROWS = ("train", "valid", "interactions", "history")


def quick(index: Path, config: Path, steps: int = STEPS) -> dict[str, Any]:
    """HR@10 and NDCG@10 by item on validation rows, of a small model trained on an index, and of
    one trained on the same SIDs dealt out at random.

    Args:
        index: `.index.json`.
        config: a configuration, of which the rows are read.
        steps: optimizer updates of each model.

    Returns:
        `index` and `random_sids`: metric → `value`, `low`, `high`; and `rows`, those ranked.

    Raises:
        UserError: as training and evaluation.
    """
    data = with_rows(Request(config, [], read_tree(config))).tree.get("data") or {}
    rows = {name: data[name] for name in ROWS if name in data}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        indexes = {"index": index, "random_sids": random_index(index, folder)}
        return {
            name: train_briefly(folder / name, {**rows, "index": str(file)}, steps, str(config))
            for name, file in indexes.items()
        }


def random_index(index: Path, folder: Path) -> Path:
    """Write the SIDs of an index, dealt out at random, into a folder."""
    known = read_catalogue(None, index)
    dealt = np.random.default_rng(SEED).permutation(len(known.ids))
    random = dict(zip(known.ids, [known.sids[place] for place in dealt], strict=True))
    path = folder / "random.index.json"
    path.write_text(json.dumps(random), encoding="utf-8")
    return path


@contextmanager
def _silence() -> Iterator[None]:
    """Of training and evaluation, whose output is not what was asked for."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def train_briefly(
    folder: Path, data: dict[str, Any], steps: int, where: str = "data"
) -> dict[str, Any]:
    """Train a small model and rank validation rows.

    Args:
        folder: new; base, run and cache lie in it.
        data: the section `data`: index and rows.
        where: it comes from, for messages.

    Returns:
        `rows`, and metric → `value`, `low`, `high`, by item.
    """
    create_base(folder / "base", template_texts(), HIDDEN, LAYERS)
    ambiguous = nested(set(read_catalogue(None, Path(data["index"])).sids))
    tree = {
        "output_dir": str(folder / "run"),
        "seed": SEED,
        "model": {
            "base": str(folder / "base"),
            "from_scratch": True,
            "residual_dropout": 0.1,
            "embedding_dropout": 0.1,
        },
        "data": {**data, "sample": MOST_USERS},
        # Without a closing token a SID that is the beginning of another one is ambiguous.
        "tasks": {"sid_next" if ambiguous else "sid_sequence": None},
        "encoding": {"cache_dir": str(folder / "cache")},
        "training": {
            "max_steps": steps,
            "batch_size": USERS_PER_STEP,
            "learning_rate": 3e-3,
            "warmup": min(100, steps // 4),
            "weight_decay": 0.05,
        },
        "eval": {"every": steps, "max_rows": MOST_ROWS},
    }
    options = RankOptions(beams=BEAMS)
    request = EvaluationRequest(folder / "run", "valid", options, limit=MOST_ROWS, baselines=False)
    with _silence():
        train(parse_config(tree, where))
        report = evaluate(request)
    assert report is not None
    found = report.rankers["model"].item
    return {"rows": report.rows, **{metric: vars(found[metric]) for metric in METRICS}}
