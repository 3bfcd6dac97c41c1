"""Loads a base model's tokenizer and configuration, and refuses those that cannot be trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from sidtune.base.errors import UserError
from sidtune.files.pointers import refuse_pointers
from sidtune.files.shards import SHARDS, sharded
from sidtune.tokenizer.faults import is_fault, refuse_deadly

ADAPTER_CONFIG = "adapter_config.json"
# Far beyond any model; layers are constructed one by one, so a huge number would exhaust time and
# memory.
MOST_LAYERS = 1_000


def load_tokenizer(
    base: str, trust_remote_code: bool = False, of_adapter: bool = False
) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a base; EOS becomes the pad token if there is none.

    Args:
        of_adapter: whether the folder may be that of an adapter.

    Raises:
        UserError: for a base that cannot be found, and tokenizers that are slow, lack EOS, need
            their own code, or are malicious.
    """
    _refuse_no_model(base, of_adapter)
    refuse_deadly(base)
    tokenizer = _from_pretrained(AutoTokenizer, base, trust_remote_code)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            f"{base} has no fast tokenizer ({type(tokenizer).__name__})",
            "The folder must contain tokenizer.json.",
        )
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{base}: the tokenizer has no EOS token, which must end every response",
            "Set eos_token in its tokenizer_config.json.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if hasattr(tokenizer, "legacy"):
        # It decides where spaces are added, and Transformers omits it when saving: the copy would
        # tokenise differently.
        tokenizer.init_kwargs["legacy"] = tokenizer.legacy
    return tokenizer


def load_model_config(base: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Load the model configuration of a base.

    Raises:
        UserError: for a base that cannot be found, is not a causal language model, has
            bidirectional attention, or has an unreasonable number of layers.
    """
    _refuse_no_model(base)
    config = _from_pretrained(AutoConfig, base, trust_remote_code)
    kernel = getattr(config, "_attn_implementation", None)
    if "/" in str(kernel) and not trust_remote_code:
        raise UserError(
            f"{base} loads its attention implementation from the Hub ({kernel}); such code runs"
            " only with your consent",
            "Remove attn_implementation from its config.json, or add --trust-remote-code if you"
            " trust it.",
        )
    if config.is_encoder_decoder:
        raise UserError(
            f"{base} is an encoder-decoder model ({config.model_type})",
            "Use a causal language model.",
        )
    own_code = trust_remote_code and "AutoModelForCausalLM" in getattr(config, "auto_map", {})
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not own_code:
        raise UserError(
            f"{base} is not a causal language model ({config.model_type})",
            "Use one, such as Qwen or LLaMA.",
        )
    if _sees_ahead(config):
        raise UserError(
            f"{base} is not a causal language model: its attention is bidirectional"
            f" ({config.model_type})",
            "Use one, such as Qwen or LLaMA.",
        )
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise UserError(
            f"{base}: num_hidden_layers is {layers:,}, more than {MOST_LAYERS:,}",
            "Check its config.json.",
        )
    assert isinstance(config, PreTrainedConfig)
    return config


def _sees_ahead(config: Any) -> bool:
    """Whether attention is bidirectional: Transformers also loads encoders such as BERT as causal
    models.
    """
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        config, "is_decoder", False
    )
    both_ways = getattr(config.get_text_config(), "use_bidirectional_attention", False) in (
        True,
        "all",
    )
    return encoder or both_ways


def _refuse_no_model(base: str, of_adapter: bool = False) -> None:
    """Refuse folders that do not exist, contain an adapter, or contain Git LFS pointers."""
    looks_local = Path(base).is_absolute() or base.startswith((".", "~")) or base.count("/") > 1
    if looks_local and not Path(base).is_dir():
        raise UserError(
            f"model.base: no such folder: {base}",
            "`sidtune new-model DIR` creates a small base model.",
        )
    if (Path(base) / ADAPTER_CONFIG).is_file() and not of_adapter:
        # An adapter names another model, which would be loaded instead.
        raise UserError(
            f"{base} contains an adapter ({ADAPTER_CONFIG}), not a complete model",
            "Merge it into its base model first. `sidtune merge FOLDER OUT` merges an adapter that"
            " sidtune trained.",
        )
    if (Path(base) / SHARDS).is_dir():
        raise UserError(*sharded(base))
    refuse_pointers(Path(base))


def _from_pretrained(loader: Any, base: str, trust_remote_code: bool) -> Any:
    """Load, with errors that name the base and the next step; the base's own code runs only with
    the flag.
    """
    try:
        return loader.from_pretrained(base, trust_remote_code=trust_remote_code)
    except BaseException as error:
        # For damaged files the readers raise exceptions of any type, and the Rust code panics.
        if not is_fault(error):
            raise
        reason = " ".join(str(error).split())
    if "trust_remote_code" in reason:
        raise UserError(
            f"{base} contains Python code, which runs only with your consent",
            "Read that code; if you trust it, add --trust-remote-code.",
        )
    if Path(base).is_dir():
        raise UserError(
            f"model.base: {base} cannot be read: {reason[:300]}",
            "It must contain config.json and tokenizer.json.",
        )
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", "")
    hint = "Offline mode is on (HF_HUB_OFFLINE): nothing is downloaded. " if offline else ""
    raise UserError(
        f"model.base: {base} is neither a local folder nor a model that can be downloaded:"
        f" {reason[:300]}",
        f"{hint}Check the name and the network. `sidtune new-model DIR` creates a small base"
        " model.",
    )
