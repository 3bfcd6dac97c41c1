"""A small model from scratch and its training, by the size of the data.

The rules lie between the recipes that were tuned on validation rows, see docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidtune.encoding.build import load_catalogue
from sidtune.model.new_base import create_base
from sidtune.runs.output import BASES
from sidtune.tasks.config import Config
from sidtune.tasks.source import load_split
from sidtune.templates import template_texts

LAYERS = 4
# Training targets from which a shop counts as large.
LARGE = 50_000


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
        if not self.base.is_dir():
            self.base.parent.mkdir(parents=True, exist_ok=True)
            create_base(self.base, template_texts(), self.hidden, LAYERS)


def recipe_for(config: Config) -> Recipe:
    """The recipe for the training rows of a configuration; `data` and `output_dir` count."""
    targets = len(load_split(config.data, load_catalogue(config), "train").target)
    large = targets >= LARGE
    hidden = 256 if large else 128
    dropout = 0.1 if large else 0.2
    base = config.output_dir / BASES / f"{hidden}x{LAYERS}"
    model = {
        "base": str(base),
        "from_scratch": True,
        "residual_dropout": dropout,
        "embedding_dropout": dropout,
    }
    training = {
        "epochs": 10 if large else 24,
        "batch_size": 64 if large else 32,
        "learning_rate": 1e-3 if large else 2e-3,
        "warmup": 400 if large else 100,
        "weight_decay": 0.05 if large else 1.0,
    }
    evaluation = {
        "every": 0.25,
        "metric": "ndcg@10",
        "patience": None,
        "ranking": {"every": 1, "sample": 2000},
    }
    tasks = {"sid_sequence": None, "sid_sequence_reversed": None}
    return Recipe(
        base, hidden, {"model": model, "tasks": tasks, "training": training, "eval": evaluation}
    )
