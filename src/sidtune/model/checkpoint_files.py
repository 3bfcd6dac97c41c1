"""Saving and loading models: always as ordinary Hugging Face folders, for every way of tuning."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.files.weight_files import (
    INDEX,
    WEIGHTS,
    load_file,
    load_weights,
    shard_names,
    weights_in,
)
from sidtune.model.tuning import tuning_of
from sidtune.model.tuning.base import matrix_names
from sidtune.model.tuning.quantised import drop_quantisation, quantised_layers
from sidtune.model.unchanged import Unchanged

SID_ROWS = "sid_rows.safetensors"
# Of a run with LoRA: its adapters, and the base's weights under them.
ADAPTERS, HIDDEN = "lora_adapters.safetensors", "lora_base.safetensors"
# The names in that file, so that no two files of a checkpoint hold weights of one name.
UNDER = "base."
# Kept from the base's generation settings; all others change which token is chosen.
KEPT_SETTINGS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_length",
    "max_new_tokens",
    "use_cache",
)


def plain_state_dict(
    model: PreTrainedModel,
    dtype: torch.dtype | None = None,
    computed: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The weights under the plain model's names, with trained rows merged in and without a tied
    head.

    Args:
        dtype: of floating-point weights; None leaves them as they are.
        computed: of merged weights, where `dtype` is None.
    """
    tuning = tuning_of(model)
    state = tuning.merged_state(model, dtype or computed)
    if tuning.tied(model):
        state.pop(f"{matrix_names(model)[1]}.weight", None)
    return {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous()
        for name, value in state.items()
    }


def load_plain_state_dict(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Load ordinary weights into a model, however it is tuned.

    Args:
        weights: under the names of the model or of its files.

    Raises:
        UserError: names weights that are missing, unexpected or of another shape.
    """
    expected = _plain_shapes(model)
    weights = (
        dict(weights) if expected.keys() <= weights.keys() else _under_model_names(model, weights)
    )
    if tuning_of(model).tied(model):
        _drop_head(model, weights)
    given = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = [name for name in {**expected, **given} if expected.get(name) != given.get(name)]
    if wrong:
        raise UserError(
            f"{len(wrong)} weights do not match the model, such as {wrong[0]}:"
            f" {given.get(wrong[0], 'missing')} in the file, {expected.get(wrong[0], 'unknown')} in"
            " the model",
            "Use weights of the same base with the same SID tokens.",
        )
    tuning_of(model).load_merged(model, weights)


def _plain_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """The shapes of `plain_state_dict`, without merging any weights."""
    shapes = {name: tuple(value.shape) for name, value in _twin(model, None).state_dict().items()}
    if tuning_of(model).tied(model):
        del shapes[f"{matrix_names(model)[1]}.weight"]
    return shapes


def save_pretrained(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    dtype: torch.dtype | None,
) -> None:
    """Save an ordinary Hugging Face folder, whose `generate` decodes greedily by default.

    Args:
        dtype: of the saved weights; None keeps the model's dtypes.
    """
    _twin(model, dtype).save_pretrained(folder, state_dict=plain_state_dict(model, dtype))
    tokenizer.save_pretrained(folder)


def save_training_state(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    unchanged: Unchanged | None = None,
) -> dict[str, str]:
    """Save the weights that a run resumes from: a plain model, and what it does not show.

    That is the trained rows in full precision, and in checkpoints the adapters and the base's
    weights under them. The result of a stage has no adapters: the next stage starts from the merged
    weights, which are saved in full precision.

    Args:
        unchanged: if given, files of weights that training never changes are hard-linked instead of
            written.

    Returns:
        The checksums, by name, of files that were on disk already.
    """
    known: dict[str, str] = {}
    if unchanged is None:
        save_pretrained(model, tokenizer, folder, None)
    else:
        known = _save_in_parts(model, folder, unchanged)
        tokenizer.save_pretrained(folder)
    if trained := tuning_of(model).trained_state(model):
        safetensors.torch.save_file(trained, folder / SID_ROWS)
    return known


def unchanged_files(checkpoint: Path) -> list[str]:
    """The files of a checkpoint that hold weights; the last one has those that change."""
    hidden = [HIDDEN] if (checkpoint / HIDDEN).is_file() else []
    return [*hidden, *shard_names(checkpoint / INDEX)]


def _twin(model: PreTrainedModel, dtype: torch.dtype | None) -> PreTrainedModel:
    """A plain model without weights, whose `save_pretrained` writes configuration and shards
    without our modules.
    """
    with torch.device("meta"):
        twin = type(model)(_plain_config(model))
    torch.nn.Module.to(twin, dtype or model.dtype)
    twin.generation_config = _greedy(model.generation_config)
    return twin


def _plain_config(model: PreTrainedModel) -> Any:
    """The model's configuration, without what says that its weights are quantised."""
    config = copy.deepcopy(model.config)
    drop_quantisation(config)
    return config


def _greedy(settings: GenerationConfig) -> GenerationConfig:
    """Settings for greedy decoding, with the token ids and lengths of the given ones.

    The base's sampling and penalties were chosen for chat: responses would differ between calls,
    and SIDs that repeat a token of the history would be penalised.
    """
    kept = {name: getattr(settings, name, None) for name in KEPT_SETTINGS}
    if isinstance(kept["pad_token_id"], int) and kept["pad_token_id"] < 0:
        # Some bases use -1 for "none", which Transformers refuses to save.
        kept["pad_token_id"] = None
    return GenerationConfig(
        do_sample=False, **{name: value for name, value in kept.items() if value is not None}
    )


def _save_in_parts(model: PreTrainedModel, folder: Path, unchanged: Unchanged) -> dict[str, str]:
    """Save shards of unchanged weights, hard-linked where possible, and one shard of the others;
    returns the checksums of linked files.
    """
    # Resuming reads the adapters, so merged weights need no more precision than the base's.
    state, twin = plain_state_dict(model, computed=model.dtype), _twin(model, None)
    tuning = tuning_of(model)
    stays, hidden = tuning.unchanged_names(model) & state.keys(), tuning.hidden_weights(model)
    changed = {name: value for name, value in state.items() if name not in stays}
    twin.save_pretrained(folder, state_dict=changed, max_shard_size=sys.maxsize)
    known = unchanged.link_into(folder, weights_in(folder / WEIGHTS))
    shards = sorted(known.keys() - {HIDDEN})
    if hidden:
        safetensors.torch.save_file(
            {name: value.detach().contiguous() for name, value in tuning.adapters(model).items()},
            folder / ADAPTERS,
        )
    if hidden and not known:
        safetensors.torch.save_file(
            {UNDER + name: value.contiguous() for name, value in hidden.items()}, folder / HIDDEN
        )
    if stays and not known:
        aside = folder / "frozen"
        twin.save_pretrained(
            aside, state_dict={name: state[name] for name in state if name in stays}
        )
        written = sorted(aside.glob("*.safetensors"))
        shards = [_shard(number, len(written) + 1) for number in range(1, len(written) + 1)]
        for file, shard in zip(written, shards, strict=True):
            file.rename(folder / shard)
        shutil.rmtree(aside)
    last = _shard(len(shards) + 1, len(shards) + 1)
    (folder / WEIGHTS).rename(folder / last)
    weight_map = {
        name: shard for shard in [*shards, last] for name in sorted(weights_in(folder / shard))
    }
    metadata = {"total_size": sum(value.nbytes for value in state.values())}
    index = {"metadata": metadata, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return known


def _shard(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors"


def load_training_state(model: PreTrainedModel, folder: Path) -> None:
    """Load what `save_training_state` saved of a model that was tuned in the same way.

    Raises:
        UserError: where something is missing, damaged or of another model.
    """
    tuning = tuning_of(model)
    load_plain_state_dict(model, load_weights(folder))
    if tuning.trained_state(model):
        tuning.load_trained(model, load_file(folder / SID_ROWS))
    if tuning.hidden_weights(model):
        hidden = load_file(folder / HIDDEN)
        tuning.load_adapters(
            model,
            load_file(folder / ADAPTERS),
            {name.removeprefix(UNDER): value for name, value in hidden.items()},
        )


def load_start(model: PreTrainedModel, folder: Path, sid_ids: Tensor) -> None:
    """Start a new run from the weights in a folder, in the precision they were trained in, whatever
    the tuning.

    Args:
        sid_ids: ids of the SID tokens, ascending.

    Raises:
        UserError: where something is missing, damaged or of another model.
    """
    if quantised_layers(model):
        raise UserError(
            f"model.quantize: a quantised base cannot start from the weights in {folder}",
            f"Use model.base: {folder}.",
        )
    load_plain_state_dict(model, load_weights(folder))
    if (folder / SID_ROWS).is_file():
        tuning_of(model).adopt_rows(model, load_file(folder / SID_ROWS), sid_ids)


def _under_model_names(model: PreTrainedModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights as Transformers does on loading: in files, some have other names, such as one
    per expert.
    """
    # Float32 represents every narrower dtype exactly; the configuration's dtype would round trained
    # weights.
    loaded: Any = type(model).from_pretrained(
        None,
        config=_plain_config(model),
        state_dict=dict(weights),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    plain, report = loaded
    found = {
        name: value
        for name, value in plain.state_dict().items()
        if name not in report["missing_keys"]
    }
    unknown = {name: weights[name] for name in report["unexpected_keys"]}
    misshapen = {
        name: torch.empty(shape, device="meta") for name, shape, _ in report["mismatched_keys"]
    }
    return found | unknown | misshapen


def _drop_head(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Remove the output matrix, which equals the input matrix in a tied model.

    Raises:
        UserError: if it differs, and would be lost.
    """
    embedding_name, head_name = matrix_names(model)
    head, rows = weights.pop(f"{head_name}.weight", None), weights.get(f"{embedding_name}.weight")
    if head is not None and rows is not None and not torch.equal(head, rows):
        raise UserError(
            "these weights have untied output embeddings, but the model's embeddings are tied",
            "Use weights of the same base, or use them as model.base.",
        )
