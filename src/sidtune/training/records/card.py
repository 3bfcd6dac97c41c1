"""What a model card says of the training: no path of the machine, and nothing of single users."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.compute as pc
import torch
import transformers
from transformers import PreTrainedModel

import sidtune
from sidtune.inputs import Inputs
from sidtune.model.dropout import RATES
from sidtune.model.tuning import tuning_of
from sidtune.runs.model_card import Training
from sidtune.tasks.config import Config

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def training_of(
    inputs: Inputs, config: Config, model: PreTrainedModel, precision: str, outcome: str
) -> Training:
    """What was trained on what.

    Args:
        config: of the last stage.
        precision: that was used.
        outcome: of the run, in a line.
    """
    options = config.task_options()
    return Training(
        title=inputs.config.output_dir.name,
        base=hub_name(config),
        model=_model(config, model),
        data=_data(inputs),
        tasks=[
            name if each.weight == 1 else f"{name} × {each.weight:g}"
            for name, each in options.items()
        ],
        settings=_settings(config, precision, outcome),
    )


def hub_name(config: Config) -> str | None:
    """The base's name on the Hub; None for a local folder, and where its weights were not used."""
    base = config.model.base
    local = Path(base).exists() or not HUB_NAME.fullmatch(base)
    return None if local or config.model.from_scratch else base


def _model(config: Config, model: PreTrainedModel) -> dict[str, str]:
    trained, total = tuning_of(model).parameter_counts(model)
    if config.model.from_scratch:
        base = "none: trained from scratch"
    else:
        base = hub_name(config) or "a local model"
    text = model.config.get_text_config()
    return {
        "base": base,
        "architecture": f"{model.config.model_type}, hidden size {text.hidden_size},"
        f" {text.num_hidden_layers} layers"
        if hasattr(text, "hidden_size") and hasattr(text, "num_hidden_layers")
        else str(model.config.model_type),
        "parameters": f"{total:,}, {'all' if trained == total else f'{trained:,}'} of them trained",
        "tuning": config.model.tuning,
    }


def _data(inputs: Inputs) -> dict[str, str]:
    # A second start on the same data reads no rows.
    rows: dict[str, str] = inputs.mixture.remembered("rows-told", lambda: _rows(inputs))
    catalogue = inputs.catalogue
    depths = sorted({len(sid) for sid in catalogue.sids})
    depth = "–".join(str(one) for one in dict.fromkeys((depths[0], depths[-1])))
    return {
        "items": f"{len(catalogue.ids):,}",
        **rows,
        "SIDs": f"{len(set(catalogue.sids)):,} of {depth} tokens,"
        f" {len(catalogue.sid_tokens):,} tokens in all",
    }


def _rows(inputs: Inputs) -> dict[str, str]:
    train, valid = (inputs.mixture.source(split).rows for split in ("train", "valid"))
    return {
        "training rows": f"{len(train.target):,} of {len(pc.unique(train.users.indices)):,} users",
        "validation rows": f"{len(valid.target):,}",
        "mean history": f"{train.history.lengths.mean():.1f} items",
    }


def _settings(config: Config, precision: str, outcome: str) -> dict[str, str]:
    training = config.training
    rates = {name: getattr(config.model, name) for name in RATES}
    return {
        "outcome": outcome,
        "length": f"{training.max_steps:,} steps"
        if training.max_steps
        else f"{training.epochs} epoch{'s' if training.epochs > 1 else ''}",
        "batch": f"{training.batch_size} examples",
        "learning rate": f"{training.learning_rate:g}, cosine to {training.min_lr_ratio:g} of it,"
        f" warmup {training.warmup:g}",
        "weight decay": f"{training.weight_decay:g}",
        **{name.replace("_", " "): f"{rate:g}" for name, rate in rates.items() if rate is not None},
        "longest example": f"{config.encoding.cutoff_len} tokens",
        "precision": precision,
        "seed": str(config.seed),
        "versions": f"sidtune {sidtune.__version__}, Transformers {transformers.__version__},"
        f" PyTorch {torch.__version__}",
    }
