"""How a run trains: the plan and the Trainer of its stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

from sidtune.base.signals import StopRequest
from sidtune.base.terminal import console
from sidtune.batching.prefixes import Prefixes
from sidtune.batching.steps import Steps
from sidtune.encoding.corpus import EncodedTask
from sidtune.inputs import Inputs
from sidtune.tasks.config import Config
from sidtune.training.arguments import compact_optimizer
from sidtune.training.display.callbacks import LOSS_SHOWN
from sidtune.training.display.watching import callbacks
from sidtune.training.guards.interruption import StopWhenAsked
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.loss.variant import LossVariant, make_variant
from sidtune.training.make_steps import make_steps
from sidtune.training.trainer import StepTrainer
from sidtune.training.validation_ranking import ValidationRanking


@dataclass(frozen=True)
class Shared:
    """Data shared by the stages of a run.

    Args:
        training, valid: the encoded tasks.
        identity: settings that a resumed run must share.
        prefixes: SID prefixes, if the loss needs them.
    """

    inputs: Inputs
    training: list[EncodedTask]
    valid: list[EncodedTask]
    identity: dict[str, Any]
    prefixes: Prefixes | None


@dataclass(frozen=True)
class Method:
    """How a run trains, where ways to train differ.

    Args:
        steps: makes the plan of a stage, laid out.
        trainer: makes the Trainer of a stage.
        settings: what a resumed run must share besides what every run must.
        earlier: folders of runs that this one continues: they may have settled the text around
            examples.
    """

    steps: Callable[[Shared, Config, PreTrainedModel, TrainingArguments], Steps]
    trainer: Callable[
        [Shared, Config, PreTrainedModel, Steps, TrainingArguments, StopRequest], StepTrainer
    ]
    settings: Callable[[Inputs], dict[str, Any]]
    earlier: tuple[Path, ...] = ()


def supervised_steps(
    shared: Shared, config: Config, model: PreTrainedModel, arguments: TrainingArguments
) -> Steps:
    """The plan of a stage, over the encoded examples."""
    vocabulary = shared.inputs.vocabulary
    return make_steps(config, shared.training, model, vocabulary, arguments, shared.prefixes)


def supervised_trainer(
    shared: Shared,
    config: Config,
    model: PreTrainedModel,
    steps: Steps,
    arguments: TrainingArguments,
    request: StopRequest,
) -> StepTrainer:
    """The Trainer of a stage, with the configured loss."""
    variant = make_variant(config.loss, shared.prefixes)
    return make_trainer(shared, config, model, steps, arguments, request, variant)


def make_trainer(
    shared: Shared,
    config: Config,
    model: PreTrainedModel,
    steps: Steps,
    arguments: TrainingArguments,
    request: StopRequest,
    variant: LossVariant | None,
    kind: Callable[..., StepTrainer] = StepTrainer,
    shown: Mapping[str, str] = LOSS_SHOWN,
) -> StepTrainer:
    """A Trainer of one stage, with its configuration.

    Args:
        variant: the loss, None for the plain one.
        shown: entries of the log that the table on the console has, by title.
    """
    inputs = shared.inputs
    return kind(
        model=LabelLoss(model, len(shared.training), variant),
        arguments=arguments,
        steps=steps,
        tasks=[task.name for task in shared.training],
        valid=shared.valid,
        tokenizer=inputs.vocabulary.tokenizer,
        identity=shared.identity,
        save_total_limit=config.eval.save_total_limit,
        bundle=lambda: inputs.bundle,
        ranking=validation_ranking(inputs),
        callbacks=[*callbacks(config, shared.valid, shown), StopWhenAsked(request)],
        decay_embeddings=config.training.decay_embeddings,
        auto_tokens=config.training.layout != "padded" and config.training.max_tokens == "auto",
        optimizer=compact_optimizer(config.training, arguments),
    )


def validation_ranking(inputs: Inputs) -> ValidationRanking | None:
    """Ranking metrics of the validation rows, if configured."""
    if inputs.config.eval.ranking.every is None:
        return None
    rows, config = inputs.mixture.source("valid").rows, inputs.config
    ranking = ValidationRanking(
        inputs.bundle, inputs.vocabulary.tokenizer, rows, config.eval.ranking, config.seed
    )
    if config.eval.ranking.exclude_history == "auto" and ranking.options.exclude_history:
        console.print(
            "hardly any user has an item twice: rankings of validation rows leave the history out"
            " (eval.ranking.exclude_history)"
        )
    return ranking


SUPERVISED = Method(supervised_steps, supervised_trainer, settings=lambda inputs: {})
