"""Builds the steps of this process from the configuration."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel, TrainingArguments

from sidtune.base.terminal import warn
from sidtune.batching.layouts import Layout
from sidtune.batching.plan import Plan
from sidtune.batching.prefixes import Prefixes
from sidtune.batching.steps import Steps
from sidtune.config.training import TrainingConfig
from sidtune.encoding.corpus import Corpus, EncodedTask
from sidtune.model.attention import runs_trees, takes_left_padding
from sidtune.model.costs import pass_cost, token_cost
from sidtune.tasks.config import Config
from sidtune.tokenizer.vocabulary import Vocabulary

# Used where memory is not measured: keeps two to sixteen cores busy and fits a laptop.
DEFAULT_MAX_TOKENS = 8192


def make_steps(
    config: Config,
    tasks: list[EncodedTask],
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    arguments: TrainingArguments,
    prefixes: Prefixes | None = None,
) -> Steps:
    """The plan of the whole run, with the steps of this rank.

    Args:
        prefixes: SID prefixes, if the loss needs them.
    """
    training = config.training
    layout = make_layout(
        training, model, config.encoding.cutoff_len, int(vocabulary.tokenizer.pad_token_id)
    )
    layout = replace(layout, prefixes=prefixes)
    if arguments.process_index == 0:
        _announce(layout, training, model)
    corpus = Corpus(tasks)
    return Steps(
        corpus, make_plan(config, corpus), layout, arguments.process_index, arguments.world_size
    )


def _announce(layout: Layout, training: TrainingConfig, model: PreTrainedModel) -> None:
    """Warn if the layout differs from the configured one; the loss is the same."""
    kind = model.config.model_type
    if layout.name != training.layout:
        warn(
            f"{kind}: prefixes are not shared (layout bucketed instead of tree), since the model"
            " does not support custom attention masks, or its attention window is shorter than"
            " encoding.cutoff_len"
        )
    if not layout.pads_left:
        warn(
            f"{kind}: examples are padded on the right, since left padding would change the loss of"
            " this model"
        )


def make_plan(config: Config, corpus: Corpus) -> Plan:
    """The assignment of examples to steps."""
    training, options = config.training, config.task_options()
    return Plan(
        histories=corpus.histories,
        task_sizes=corpus.sizes,
        weights=[options[task.name].weight for task in corpus.tasks],
        batch_size=training.batch_size,
        group_by=training.group_by,
        seed=config.seed,
    )


def measures_memory(training: TrainingConfig, device_type: str) -> bool:
    """Whether the tokens per forward pass are found by measuring memory, which needs CUDA."""
    return training.layout != "padded" and training.max_tokens == "auto" and device_type == "cuda"


def make_layout(
    training: TrainingConfig, model: PreTrainedModel, cutoff_len: int, pad_id: int
) -> Layout:
    """The configured layout, or `bucketed` if the model does not support `tree`."""
    if training.layout == "padded":
        return Layout(
            "padded", training.micro_batch_size, pad_id, pads_left=takes_left_padding(model)
        )
    limit = DEFAULT_MAX_TOKENS if training.max_tokens == "auto" else training.max_tokens
    if training.layout == "tree" and runs_trees(model, cutoff_len):
        return Layout("tree", limit, pad_id, pass_cost(model), token_cost(model))
    return Layout("bucketed", limit, pad_id, pass_cost(model))
