"""Loads or builds the language model, with embedding rows for the new tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from sidtune.base.errors import UserError
from sidtune.base.resources import memory
from sidtune.base.storage import GIB
from sidtune.config.model import ModelConfig
from sidtune.model.base_files import SCRATCH, quantisation_fault, weight_faults
from sidtune.model.dropout import set_dropout
from sidtune.model.initialise import ItemTexts, mean_rows, text_rows
from sidtune.model.tuning import TUNINGS
from sidtune.model.tuning.base import freeze_beside_text
from sidtune.model.tuning.quantised import drop_quantisation, make_trainable, settings
from sidtune.tokenizer.load import load_model_config
from sidtune.tokenizer.vocabulary import Vocabulary

ROWS_MULTIPLE = 64


def load_model(
    config: ModelConfig,
    vocabulary: Vocabulary,
    seed: int,
    trust_remote_code: bool = False,
    texts: ItemTexts | None = None,
    dtype: torch.dtype | None = None,
    widen: bool = True,
) -> PreTrainedModel:
    """The model ready to train: rows for all tokens, trained parameters in float32, the rest frozen
    as configured.

    Args:
        texts: titles and SIDs of the items; only used for `new_rows: text`.
        dtype: of the frozen weights; None: the base's own.
        widen: whether full tuning makes all weights float32, before they are sharded.

    Raises:
        UserError: for frozen tuning without SID tokens, for a base whose weights are missing,
            incomplete or quantised, for a configuration that no model can be built from, for a
            tokenizer with ids that the model has no rows for, and for dropout that the architecture
            does not support.
    """
    model = _undropped(config, vocabulary, seed, trust_remote_code, texts, dtype, widen)
    set_dropout(model, config)
    TUNINGS[config.tuning].adapt(model, config.lora, seed)
    return model


def _undropped(
    config: ModelConfig,
    vocabulary: Vocabulary,
    seed: int,
    trust_remote_code: bool,
    texts: ItemTexts | None,
    dtype: torch.dtype | None,
    widen: bool,
) -> PreTrainedModel:
    """The model as `load_model` returns it, but with the base's own dropout and no adapters."""
    model_config = load_model_config(config.base, trust_remote_code)
    if config.from_scratch:
        model = _build(config.base, model_config, vocabulary, seed, trust_remote_code)
        freeze_beside_text(model)
        return model
    beside = config.tuning == "lora"
    if fault := quantisation_fault(config.base, model_config, config.quantize, beside):
        raise fault
    options: dict[str, Any] = {"dtype": dtype or "auto"}
    if config.quantize:
        options["quantization_config"] = settings(config.quantize, dtype or torch.bfloat16)
    if config.quantize or hasattr(model_config, "quantization_config"):
        # Loaded on the CPU, as any base; by itself, Transformers would load it on a GPU.
        options["device_map"] = {"": "cpu"}
    model = _load(config.base, trust_remote_code, **options)
    make_trainable(model)
    freeze_beside_text(model)
    added = _make_room(model, rows_needed(model_config, vocabulary.tokenizer))
    assert texts is not None or config.new_rows == "mean"
    _initialise(model, vocabulary, added, texts if config.new_rows == "text" else None, seed)
    if widen or config.tuning != "full":
        TUNINGS[config.tuning].apply(model, torch.from_numpy(vocabulary.sid_ids))
    return model


def load_trained(
    folder: Path, device: torch.device, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load a model folder for inference, in its own precision on a GPU and in float32 otherwise.

    Raises:
        UserError: for weights that are missing, damaged or incomplete.
    """
    dtype = "auto" if device.type == "cuda" else torch.float32
    model = _load(str(folder), trust_remote_code, "Give another checkpoint.", dtype=dtype)
    moved: Any = model.to(device)  # type: ignore[arg-type]
    return moved.eval()  # type: ignore[no-any-return]


def load_plain(base: str, rows: int, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a base in float32, with at least so many rows in its matrices; added rows are not
    initialised.

    Raises:
        UserError: for weights that are missing, damaged, incomplete or quantised.
    """
    if fault := quantisation_fault(base, load_model_config(base, trust_remote_code)):
        raise fault
    model = _load(base, trust_remote_code, dtype=torch.float32)
    _make_room(model, max(rows, len(_matrices(model)[0])))
    return model


def skeleton(base: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """The modules of a base, whose weights take no memory and have no values."""
    model_config = load_model_config(base, trust_remote_code)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            model_config, trust_remote_code=trust_remote_code
        )
    return model  # type: ignore[no-any-return]


def load_outline(
    config: ModelConfig,
    vocabulary: Vocabulary,
    seed: int,
    trust_remote_code: bool = False,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """The model as `load_model` returns it, on the meta device: shapes and types without values,
    and quantised layers as if they were not.

    Args:
        dtype: of the frozen weights; None: the base's own.

    Raises:
        UserError: for a base that `load_model` refuses, as far as headers tell.
    """
    model_config = load_model_config(config.base, trust_remote_code)
    beside = config.tuning == "lora"
    if not config.from_scratch:
        if fault := quantisation_fault(config.base, model_config, config.quantize, beside):
            raise fault
        for fault in weight_faults(config.base, SCRATCH):
            raise fault
    held = base_dtype(config, trust_remote_code) if dtype is None else dtype
    own = torch.float32 if config.from_scratch else held
    rows = rows_needed(model_config, vocabulary.tokenizer)
    sid_ids = torch.from_numpy(vocabulary.sid_ids)
    return outline(config, model_config, rows, sid_ids, own, seed, trust_remote_code)


def outline(
    config: ModelConfig,
    model_config: PreTrainedConfig,
    rows: int,
    sid_ids: Tensor,
    dtype: torch.dtype,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A model on the meta device, tuned as configured.

    Args:
        model_config: of the base; its rows are set to `rows`.
        sid_ids: `(SID tokens,)` ids, ascending.
        dtype: of frozen weights.
    """
    drop_quantisation(model_config)
    model_config.get_text_config().vocab_size = rows
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            model_config, dtype=dtype, trust_remote_code=trust_remote_code
        )
        freeze_beside_text(model)
        tuning = TUNINGS[config.tuning]
        tuning.apply(model, sid_ids)
        set_dropout(model, config)
        tuning.adapt(model, config.lora, seed)
    return model  # type: ignore[no-any-return]


def base_dtype(config: ModelConfig, trust_remote_code: bool = False) -> torch.dtype:
    """The data type of the base's weights, which the result is saved in."""
    dtype = load_model_config(config.base, trust_remote_code).dtype
    if dtype is None and not config.from_scratch:
        # Older configurations do not record it; the weights do, and on the meta device only headers
        # are read.
        dtype = _load(config.base, trust_remote_code, device_map="meta").config.dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _build(
    base: str,
    model_config: PreTrainedConfig,
    vocabulary: Vocabulary,
    seed: int,
    trust_remote_code: bool,
) -> PreTrainedModel:
    """A model of the base's architecture with random weights, those of new tokens included."""
    model_config.get_text_config().vocab_size = rows_needed(model_config, vocabulary.tokenizer)
    drop_quantisation(model_config)

    def build() -> PreTrainedModel:
        model: Any = AutoModelForCausalLM.from_config(
            model_config, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
        return model  # type: ignore[no-any-return]

    try:
        # On the meta device weights take no memory, so a model that is too large is found before
        # allocation.
        with torch.device("meta"):
            _refuse_huge(base, build().get_memory_footprint())
        set_seed(seed)
        model = _with_constant_weights(build())
    except UserError:
        raise
    except Exception as error:
        # Architectures may raise any exception for invalid values.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"no model can be built from the config.json of {base}: {reason}",
            "Use the config.json that the model was published with.",
        ) from None
    _say_ties(model)
    return model


def _refuse_huge(base: str, needed: int) -> None:
    """Refuse weights of `needed` bytes if the machine has less memory."""
    there = memory()
    if there and needed > there:
        raise UserError(
            f"the config.json of {base} describes weights of {needed / GIB:,.1f} GiB in float32, "
            f"but this machine has {there / GIB:,.1f} GiB of memory",
            "Choose a smaller base.",
        )


def rows_needed(model_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> int:
    """Number of embedding rows: at least the base's (some have spare rows), and a multiple of 64.

    Raises:
        UserError: for a tokenizer with ids beyond them.
    """
    rows = max(int(model_config.get_text_config().vocab_size), len(tokenizer))
    rows = -(-rows // ROWS_MULTIPLE) * ROWS_MULTIPLE
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has ids up to {highest:,}, "
            f"but the model has {rows:,} rows",
            "Use model and tokenizer from the same source.",
        )
    return rows


def _load(
    base: str, trust_remote_code: bool, hint: str = "", dtype: Any = "auto", **options: Any
) -> PreTrainedModel:
    """Load a base; `hint` says what to do if its weights are missing."""
    load_model_config(base, trust_remote_code)
    for fault in weight_faults(base, hint or SCRATCH):
        raise fault
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        # Its readers may raise any exception for damaged files.
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the weights of {base} cannot be loaded: {reason}",
            hint or (SCRATCH if Path(base).is_dir() else "Check the name and the network."),
        ) from None
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{base} lacks {len(missing)} weights, such as {missing[0]}",
            hint
            or "They would be random: use the complete model. "
            f"{_tie_hint(model, missing)}{SCRATCH}",
        )
    assert isinstance(model, PreTrainedModel)
    _say_ties(model)
    return _with_constant_weights(model)


def _with_constant_weights(model: PreTrainedModel) -> PreTrainedModel:
    """The model, with in-place changes of its own weights switched off.

    In evaluation mode, RWKV divides weights in place, against overflow in float16. Checkpoints are
    saved after an evaluation, so they would contain the divided weights.
    """
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0
    return model


def _tie_hint(model: PreTrainedModel, missing: list[str]) -> str:
    """A hint if only the output head is missing: it may be tied, without the configuration saying
    so.
    """
    head = model.get_output_embeddings()
    if missing != [
        name for name, weight in model.named_parameters() if weight is getattr(head, "weight", None)
    ]:
        return ""
    return "If its embeddings are tied, set tie_word_embeddings: true in its config.json. "


def _say_ties(model: PreTrainedModel) -> None:
    """Set `tie_word_embeddings` to whether input and output rows are one matrix.

    Transformers keeps two different matrices even if the configuration says that they are tied.
    Resizing follows the configuration and would lose one of them, and so would loading the result.
    """
    tied = len(_matrices(model)) == 1
    for config in (model.config, model.config.get_text_config()):
        if getattr(config, "tie_word_embeddings", False) != tied:
            config.tie_word_embeddings = tied


def _make_room(model: PreTrainedModel, rows: int) -> range:
    """Grow the matrices to `rows` rows; returns the range of added rows."""
    before = len(_matrices(model)[0])
    if before != rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return range(before, rows)


@torch.no_grad()
def _initialise(
    model: PreTrainedModel, vocabulary: Vocabulary, added: range, texts: ItemTexts | None, seed: int
) -> None:
    """Initialise the rows of the tokens that are new to the tokenizer, also where they use the
    base's spare rows, which are not trained.

    Rows added as padding are drawn too, so that they depend on the seed alone.
    """
    fresh = {*vocabulary.new_ids.tolist(), *added}
    if not fresh:
        return
    new = torch.tensor(sorted(fresh))
    known = torch.tensor(
        [i for i in sorted(vocabulary.tokenizer.get_vocab().values()) if i not in fresh]
    )
    generator = torch.Generator().manual_seed(seed)
    placed = texts.placed(known.numpy(), new.numpy()) if texts else None
    for matrix in _matrices(model):
        count, old = len(new), matrix[known]
        rows = (
            text_rows(old, count, generator, placed) if placed else mean_rows(old, count, generator)
        )
        matrix[new] = rows.to(matrix.dtype)
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        bias[new] = bias[known].mean()


def _matrices(model: PreTrainedModel) -> list[Tensor]:
    """The input matrix, and the output matrix unless they are tied."""
    embedding: Any = model.get_input_embeddings()
    inputs, outputs = embedding.weight, model.get_output_embeddings().weight
    return [inputs] if inputs is outputs else [inputs, outputs]
