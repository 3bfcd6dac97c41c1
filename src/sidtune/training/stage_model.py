"""The model of a stage: loaded or outlined, whole or sharded, and in one piece again at the end."""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel, TrainingArguments

from sidtune.base.errors import UserError
from sidtune.base.terminal import library_bars
from sidtune.distributed.processes import by_first
from sidtune.inputs import Inputs
from sidtune.model.attention import attend_in_float32
from sidtune.model.checkpoint_files import load_start
from sidtune.model.load import load_model, load_outline, outline
from sidtune.model.sharding.shards import Settings, gather, is_sharded, scatter, settings_of, shard
from sidtune.model.tuning.quantised import quantised_layers, to_device
from sidtune.runs.output import Start
from sidtune.tasks.config import Config


def loaded(
    config: Config, inputs: Inputs, arguments: TrainingArguments, outlined: bool
) -> PreTrainedModel:
    """The model of a stage; `outlined`: without its weights."""
    # Frozen weights of a narrower type would be multiplied in that type.
    dtype = None if arguments.bf16 else torch.float32
    given = (config.model, inputs.vocabulary, config.seed, inputs.trust_remote_code)
    if outlined:
        try:
            return load_outline(*given, dtype)
        except UserError:
            raise
        except Exception:
            # Some architectures compute with values while they are built: these are loaded.
            pass
    if config.training.distributed == "fsdp2" and not outlined:
        model = _sharded(config, inputs, arguments, dtype)
    else:
        with library_bars():
            model = load_model(*given, inputs.item_texts, dtype)
        if not outlined:
            # Before it is probed: on a CPU, a pass of a large model takes minutes.
            to_device(model, arguments.device)
    if arguments.bf16 and arguments.device.type == "cpu":
        attend_in_float32(model)
    return model


def begin(
    model: PreTrainedModel,
    start: Start,
    config: Config,
    inputs: Inputs,
    arguments: TrainingArguments,
) -> None:
    """Load start weights, enable gradient checkpointing, and set where `generate` stops."""
    if start.weights:
        sid_ids = torch.from_numpy(inputs.vocabulary.sid_ids)
        if is_sharded(model):
            plain = in_one_piece(model, config, inputs)
            weights = start.weights
            by_first(lambda: load_start(plain, weights, sid_ids), arguments)
            scatter(model, plain if arguments.process_index == 0 else None)
        else:
            load_start(model, start.weights, sid_ids)
    if config.training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    stop_at(model, inputs.mixture.encoder.closing)


def stop_at(model: PreTrainedModel, closing: int) -> None:
    """Add the token that closes every response to those at which `generate` stops."""
    settings = model.generation_config
    assert settings is not None
    known = settings.eos_token_id
    stops = known if isinstance(known, list) else [] if known is None else [known]
    if closing not in stops:
        settings.eos_token_id = [*stops, closing]


def in_one_piece(
    model: PreTrainedModel, config: Config, inputs: Inputs, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """The model with all of its weights, on the first process, where it is sharded: a copy in main
    memory. On the other processes it then has no values.

    Args:
        dtype: of the copy's weights; None: as they are trained.
    """
    if not is_sharded(model):
        return model
    return gather(model, _outlined(settings_of(model), config, inputs), dtype)


def _sharded(
    config: Config, inputs: Inputs, arguments: TrainingArguments, dtype: torch.dtype | None
) -> PreTrainedModel:
    """The model, sharded while it is loaded: the first process reads the base in its own type, and
    each gets its shards, one parameter after the other.
    """
    made: list[PreTrainedModel] = []

    def load() -> Settings:
        with library_bars():
            given = (config.model, inputs.vocabulary, config.seed, inputs.trust_remote_code)
            made.append(load_model(*given, inputs.item_texts, dtype, widen=False))
        if quantised_layers(made[0]):
            raise UserError(
                f"training.distributed: fsdp2 cannot divide quantised weights, and"
                f" {config.model.base} is quantised",
                "Use training.distributed: ddp, or the unquantised version of this base.",
            )
        return settings_of(made[0])

    settings = by_first(load, arguments)
    model = _outlined(settings, config, inputs)
    shard(model, arguments.device, arguments.bf16)
    if settings.generation_config is not None:
        model.generation_config = settings.generation_config
    scatter(model, made.pop() if made else None)
    return model


def _outlined(settings: Settings, config: Config, inputs: Inputs) -> PreTrainedModel:
    """The modules of a model on the meta device."""
    model_config = copy.deepcopy(settings.config)
    rows = model_config.get_text_config().vocab_size
    sid_ids = torch.from_numpy(inputs.vocabulary.sid_ids)
    given = (config.seed, inputs.trust_remote_code)
    made = outline(config.model, model_config, rows, sid_ids, torch.float32, *given)
    for name, weight in made.named_parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(settings.frozen[name])
    return made
