"""A small model from scratch and its training, by the size of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidtune.base.errors import UserError
from sidtune.config.training import TrainingConfig
from sidtune.pipeline.sizes import Size, size_for
from sidtune.runs.checkpoints import BASES
from sidtune.tasks.config import Config
from sidtune.tasks.source import load_split
from sidtune.tasks.text_neighbours import any_alike, unseen
from sidtune.templates import template_texts

LAYERS = 4
# Of a run.
LONGEST_WARMUP = 0.33


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
        merged = {name: _merged(keys, own[name]) for name, keys in self.settings.items()}
        return {**merged, "tasks": own["tasks"] or self.settings["tasks"]}

    def make_base(self) -> None:
        """Make the base model, unless it is there; its tokenizer knows the prompt templates."""
        # It imports torch, and faults of a configuration are told before.
        from sidtune.model.new_base import create_base

        if not self.base.is_dir():
            self.base.parent.mkdir(parents=True, exist_ok=True)
            try:
                create_base(self.base, template_texts(), self.hidden, LAYERS)
            except UserError:
                # Several processes start at once, and each makes the same one.
                if not self.base.is_dir():
                    raise


def _merged(keys: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with those that a configuration gives itself, also within sections of a section."""
    found = {**keys, **own}
    for name, value in keys.items():
        if isinstance(value, Mapping) and isinstance(found[name], Mapping):
            found[name] = _merged(value, found[name])
    return found


def _warmup(size: Size, users: int, given: TrainingConfig) -> int | float:
    """Steps, as those sizes have; of a run that may be so short that they are more than a third of
    it, this share.

    Args:
        users: who have an example at least in each direction.
        given: what the configuration says itself of the length counts.
    """
    said = given.model_dump(exclude_unset=True)
    epochs = said.get("epochs", size.epochs)
    of_epoch = math.ceil(2 * users / said.get("batch_size", size.batch_size))
    steps = said.get("max_steps") or epochs * of_epoch
    return size.warmup if steps >= size.warmup / LONGEST_WARMUP else LONGEST_WARMUP


def recipe_for(config: Config) -> Recipe:
    """The recipe for the training rows of a configuration; `data` and `output_dir` count."""
    from sidtune.encoding.build import load_catalogue

    catalogue = load_catalogue(config)
    rows = load_split(config.data, catalogue, "train")
    users = len(rows.users.unique())
    size = size_for(len(rows.target), users)
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
        "min_lr_ratio": size.min_lr_ratio,
        "warmup": _warmup(size, users, config.training),
        "weight_decay": size.weight_decay,
    }
    evaluation = {
        "every": 0.25,
        "metric": "ndcg@10",
        "patience": None,
        "ranking": {"every": 1, "sample": 2000},
    }
    tasks: dict[str, Any] = {"sid_sequence": None, "sid_sequence_reversed": None}
    new = unseen(catalogue, rows)
    if any_alike(catalogue, rows, new):
        # Four examples of each. Of a catalogue with many such items each epoch draws a share, so
        # that they are at most half as many as the histories in both directions.
        share = users / (4 * len(new))
        tasks["text_neighbours"] = {"weight": share} if share < 1 else None
    settings: dict[str, dict[str, Any]] = {
        "model": model,
        "tasks": tasks,
        "training": training,
        "eval": evaluation,
    }
    return Recipe(base, size.hidden, settings)
