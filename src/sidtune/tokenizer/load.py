"""Reading a base's tokenizer and configuration, and refusing what cannot be trained here."""

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
from sidtune.tokenizer.faults import is_fault, refuse_deadly

ADAPTER = "adapter_config.json"
# Far beyond any model; each is built one by one, whatever the memory.
MOST_LAYERS = 1_000


def load_tokenizer(base: str, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a base; a missing pad token becomes EOS.

    Raises:
        UserError: for a base that is not there, and tokenizers that are slow, lack EOS, want to run their own code, or
            are made to harm.
    """
    _refuse_no_model(base)
    refuse_deadly(base)
    tokenizer = _from_pretrained(AutoTokenizer, base, trust_remote_code)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{base}: no fast tokenizer ({type(tokenizer).__name__})", "The folder needs a tokenizer.json.")
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{base}: the tokenizer has no EOS token, which closes every response",
            "Set eos_token in its tokenizer_config.json.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if hasattr(tokenizer, "legacy"):
        # It decides where spaces are put, and Transformers leaves it out when it saves: the copy would read otherwise.
        tokenizer.init_kwargs["legacy"] = tokenizer.legacy
    return tokenizer


def load_model_config(base: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The model configuration of a base.

    Raises:
        UserError: for a base that is not there, that is no causal language model, whose tokens see later ones, or
            that has layers without end.
    """
    _refuse_no_model(base)
    config = _from_pretrained(AutoConfig, base, trust_remote_code)
    kernel = getattr(config, "_attn_implementation", None)
    if "/" in str(kernel) and not trust_remote_code:
        raise UserError(
            f"{base} asks for attention from the hub ({kernel}), which is code and not run unasked",
            "Remove attn_implementation from its config.json, or add --trust-remote-code if you trust it.",
        )
    if config.is_encoder_decoder:
        raise UserError(f"{base} is an encoder-decoder model ({config.model_type})", "Use a causal language model.")
    own_code = trust_remote_code and "AutoModelForCausalLM" in getattr(config, "auto_map", {})
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not own_code:
        raise UserError(f"{base} is no causal language model ({config.model_type})", "Use one, such as Qwen or LLaMA.")
    if _sees_ahead(config):
        raise UserError(
            f"{base} is no causal language model: its tokens see those after them ({config.model_type})",
            "Use one, such as Qwen or LLaMA.",
        )
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise UserError(f"{base}: num_hidden_layers is {layers:,}, more than {MOST_LAYERS:,}", "Check its config.json.")
    assert isinstance(config, PreTrainedConfig)
    return config


def _sees_ahead(config: Any) -> bool:
    """Transformers loads encoders such as BERT as causal models too, and leaves their attention open both ways."""
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    both_ways = getattr(config.get_text_config(), "use_bidirectional_attention", False) in (True, "all")
    return encoder or both_ways


def _refuse_no_model(base: str) -> None:
    """Refuse folders that are not there, hold something else, or hold pointers to files."""
    looks_local = Path(base).is_absolute() or base.startswith((".", "~")) or base.count("/") > 1
    if looks_local and not Path(base).is_dir():
        raise UserError(f"model.base: no such folder: {base}", "`sidtune new-model DIR` makes a small base.")
    if (Path(base) / ADAPTER).is_file():
        # It names another model, anywhere, that would be loaded in its place.
        raise UserError(f"{base} holds an adapter ({ADAPTER}), not a whole model", "Merge it into its base first.")
    refuse_pointers(Path(base))


def _from_pretrained(loader: Any, base: str, trust_remote_code: bool) -> Any:
    """Load with a message that names the base and the next step; nothing of its code runs without the flag."""
    try:
        return loader.from_pretrained(base, trust_remote_code=trust_remote_code)
    except BaseException as error:
        # Its readers promise nothing: over damaged files they raise anything, and the Rust ones panic.
        if not is_fault(error):
            raise
        reason = " ".join(str(error).split())
    if "trust_remote_code" in reason:
        raise UserError(
            f"{base} comes with Python code of its own, which is not run unasked",
            "Read that code; if you trust it, add --trust-remote-code.",
        )
    if Path(base).is_dir():
        raise UserError(
            f"model.base: {base} cannot be read: {reason[:300]}", "It must hold config.json and tokenizer.json."
        )
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", "")
    hint = "Offline mode is on (HF_HUB_OFFLINE): nothing is downloaded. " if offline else ""
    raise UserError(
        f"model.base: {base} is neither a local folder nor a model that can be fetched",
        f"{hint}Check the name; without a network nothing is downloaded. `sidtune new-model DIR` makes a small base.",
    )
