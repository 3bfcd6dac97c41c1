"""The adapter beside a run's model, for PEFT, and how it becomes a plain model again."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.base.storage import flush_all, refusing_failed_writes
from sidtune.model.checkpoint_files import save_pretrained
from sidtune.model.load import load_plain, rows_needed
from sidtune.model.tuning.adapter_files import read_settings, save_adapter
from sidtune.runs.bundle import Bundle, read_bundle, write_bundle
from sidtune.runs.checkpoints import ADAPTER, make_partial, publish
from sidtune.runs.model_card import CARD, adapter_card
from sidtune.tokenizer.load import ADAPTER_CONFIG, load_model_config, load_tokenizer


def write_adapter(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    bundle: Bundle,
    base: str,
    tokens: Sequence[int],
    output_dir: Path,
) -> None:
    """Write the folder `adapter` of a run, which appears only when complete.

    Args:
        model: tuned with LoRA.
        base: folder or Hub name of the base.
        tokens: as in `save_adapter`.
    """
    final = output_dir / ADAPTER
    partial = make_partial(final)
    with refusing_failed_writes(final):
        save_adapter(model, base, tokens, partial)
        tokenizer.save_pretrained(partial)
        write_bundle(bundle, partial)
        rows = int(model.config.get_text_config().vocab_size)
        (partial / CARD).write_text(adapter_card(base, rows), encoding="utf-8")
        flush_all(partial)
        publish(partial, final)


def merge_adapter(source: Path, target: Path, trust_remote_code: bool = False) -> Path:
    """Write the plain model of an adapter: the base's weights and the adapter's, added in float32
    and rounded once, to the base's own type.

    Args:
        source: the folder of an adapter, or of a run that has one.
        target: must not exist, or be empty; appears only when complete.

    Returns:
        the folder of the adapter.

    Raises:
        UserError: for a source without an adapter, a base that cannot be loaded or is another one,
            and a target that is not empty.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty", "Choose a new folder.")
    folder = _adapter_of(source)
    settings = read_settings(folder)
    base = settings.base_model_name_or_path
    tokenizer, bundle = load_tokenizer(str(folder), of_adapter=True), read_bundle(folder)
    model_config = load_model_config(base, trust_remote_code)
    dtype, most = model_config.dtype, rows_needed(model_config, tokenizer)
    if settings.rows > most:
        raise UserError(
            f"{folder}: the adapter has rows up to {settings.rows:,}, but its tokenizer and its"
            f" base need {most:,}",
            "Copy the whole folder again.",
        )
    model = _merged(folder, load_plain(base, settings.rows, trust_remote_code))
    partial = make_partial(target)
    try:
        with refusing_failed_writes(target):
            save_pretrained(
                model, tokenizer, partial, dtype if isinstance(dtype, torch.dtype) else None
            )
            write_bundle(bundle, partial)
            flush_all(partial)
            if target.is_dir():
                target.rmdir()
            publish(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _merged(folder: Path, base: PreTrainedModel) -> PreTrainedModel:
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
            # PEFT asks Transformers by a name that it has given up.
            warnings.filterwarnings("ignore", category=FutureWarning)
            # Its reader warns of weights that are missing, and such a model would be wrong.
            warnings.filterwarnings("error", "Found missing adapter keys")
            adapted: Any = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False)
            return adapted.merge_and_unload()  # type: ignore[no-any-return]
    except Exception as error:
        # PEFT raises exceptions of many types for adapters that do not fit.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"the adapter in {folder} cannot be loaded into its base: {reason}",
            f"{folder / ADAPTER_CONFIG} names the base; use the one that the run was trained on.",
        ) from None


def _adapter_of(source: Path) -> Path:
    """The folder of the adapter that is meant."""
    if not source.is_dir():
        raise UserError(f"{source}: no such folder", "Give a run or the folder of an adapter.")
    if (source / ADAPTER_CONFIG).is_file():
        return source
    if (source / ADAPTER).is_dir():
        return source / ADAPTER
    raise UserError(
        f"{source} contains no adapter ({ADAPTER_CONFIG})",
        "A run writes one with model.lora.save_adapter: true. Without it, the run's folder is a"
        " merged model already.",
    )
