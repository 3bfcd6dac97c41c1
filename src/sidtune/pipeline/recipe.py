"""A small model from scratch and its training, by the size of the data.

The rules lie between the recipes that were tuned on validation rows, see docs/quality.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sidtune.runs.checkpoints import BASES
from sidtune.tasks.config import Config
from sidtune.tasks.source import load_split
from sidtune.templates import template_texts

LAYERS = 4


class Size(NamedTuple):
    """The settings of shops with fewer than `below` training targets."""

    below: float
    hidden: int
    dropout: float
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: int
    weight_decay: float


# As in the table of docs/configuration.md.
SIZES = (
    Size(30_000, 128, 0.2, 24, 32, 2e-3, 100, 1.0),
    Size(100_000, 128, 0.1, 6, 32, 2e-3, 200, 0.05),
    Size(math.inf, 256, 0.1, 10, 64, 1e-3, 400, 0.05),
)


@dataclass(frozen=True)
class Recipe:
    """A model from scratch and its training.

    Args:
        base: folder of the base model, which gives the shape and the tokenizer.
        hidden: its hidden size; it has `LAYERS` layers.
        settings: sections of the configuration.
    """

    base: Path
    hidden: int
    settings: Mapping[str, Mapping[str, Any]]

    def sections(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings; what a configuration says itself counts, and its tasks as a whole."""
        own = {name: given.get(name) or {} for name in self.settings}
        merged = {name: {**keys, **own[name]} for name, keys in self.settings.items()}
        return {**merged, "tasks": own["tasks"] or self.settings["tasks"]}

    def make_base(self) -> None:
        """Make the base model, unless it is there; its tokenizer knows the prompt templates."""
        # It imports torch, and faults of a configuration are told before.
        from sidtune.model.new_base import create_base

        if not self.base.is_dir():
            self.base.parent.mkdir(parents=True, exist_ok=True)
            create_base(self.base, template_texts(), self.hidden, LAYERS)


def recipe_for(config: Config) -> Recipe:
    """The recipe for the training rows of a configuration; `data` and `output_dir` count."""
    from sidtune.encoding.build import load_catalogue

    targets = len(load_split(config.data, load_catalogue(config), "train").target)
    size = next(size for size in SIZES if targets < size.below)
    base = config.output_dir / BASES / f"{size.hidden}x{LAYERS}"
    model = {
        "base": str(base),
        "from_scratch": True,
        "residual_dropout": size.dropout,
        "embedding_dropout": size.dropout,
    }
    training = {
        "epochs": size.epochs,
        "batch_size": size.batch_size,
        "learning_rate": size.learning_rate,
        "warmup": size.warmup,
        "weight_decay": size.weight_decay,
    }
    evaluation = {
        "every": 0.25,
        "metric": "ndcg@10",
        "patience": None,
        "ranking": {"every": 1, "sample": 2000},
    }
    tasks = {"sid_sequence": None, "sid_sequence_reversed": None}
    settings: dict[str, dict[str, Any]] = {
        "model": model,
        "tasks": tasks,
        "training": training,
        "eval": evaluation,
    }
    return Recipe(base, size.hidden, settings)
