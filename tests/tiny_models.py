"""Tiny random bases and tokenizers that many tests share."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from tests.tiny_decoders import DECODERS, DROPOUT

TEXT = [
    "A user's interactions, oldest first:\nThe next item is:\n",
    "The title of the next item is: a small blue mug, 12 oz, Item has the title",
    "tents and stoves, brushes and trowels; 'quoted' \"twice\"\tand tabs\n\n\nblank lines",
] * 4
KINDS = ("byte", "byte_bos", "always", "first", "never", "prepend")
ARCHITECTURES = (
    "qwen2",
    "qwen3",
    "llama",
    "mistral",
    "gpt2",
    "gemma",
    "gemma2",
    "qwen3_moe",
    "gpt_neox",
)


@cache
def _backend(kind: str) -> str:
    """A trained tokenizer as JSON: byte-level BPE, or SentencePiece-like with each way of putting a
    space in front.
    """
    tokenizer = Tokenizer(
        models.BPE(byte_fallback=kind not in ("byte", "byte_bos"), unk_token=None)
    )
    special = ["<s>", "</s>", "<pad>"]
    if kind.startswith("byte"):
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        if kind == "prepend":
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
        strip = [] if kind == "never" else [decoders.Strip(" ", 1, 0)]
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        tokenizer.decoder = decoders.Sequence(steps)
        alphabet = []
    if not kind.startswith("byte"):
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if kind != "byte":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    # Byte tokens are ordinary ones in real models; only the trainer needed them named.
    definition = json.loads(tokenizer.to_str())
    definition["added_tokens"] = definition["added_tokens"][:3]
    return json.dumps(definition)


def make_tokenizer(kind: str = "byte") -> PreTrainedTokenizerFast:
    """A fast tokenizer of a kind; all but `byte` put BOS in front by themselves."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend(kind)),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def make_config(architecture: str, tied: bool, rows: int, width: int = 32) -> PreTrainedConfig:
    """A configuration of about twenty thousand parameters where the width is 32; a shape of
    `DECODERS` says by itself what is tied, and how wide it is.
    """
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    if architecture in DECODERS:
        undropped = dict.fromkeys(DROPOUT & vars(AutoConfig.for_model(architecture)).keys(), 0.0)
        return AutoConfig.for_model(
            architecture, vocab_size=rows, **undropped | tokens | DECODERS[architecture]
        )
    shape = {
        "hidden_size": width,
        "intermediate_size": width * 3 // 2,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    if architecture == "gpt2":
        shape = {"n_embd": width, "n_layer": 2, "n_head": 2, "n_positions": 1024}
        shape |= {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    else:
        shape |= {"num_key_value_heads": 1, "head_dim": width // 2}
        shape |= {"max_position_embeddings": 1024}
    if architecture == "qwen3_moe":
        shape |= {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    return AutoConfig.for_model(
        architecture,
        vocab_size=rows,
        tie_word_embeddings=tied,
        **tokens | shape,
    )


def random_model(config: PreTrainedConfig, spread: float = 0.1) -> PreTrainedModel:
    """A model of random weights, wider than usual, so that outputs differ enough to compare."""
    set_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, spread)
    return model


def make_base(
    folder: Path,
    architecture: str = "qwen3",
    tied: bool = True,
    dtype: torch.dtype = torch.float32,
    spare: int = 0,
    kind: str = "byte",
    width: int = 32,
) -> Path:
    """Save a complete base: random weights and a tokenizer, with `spare` rows that no token has."""
    tokenizer = make_tokenizer(kind)
    model: Any = random_model(make_config(architecture, tied, len(tokenizer) + spare, width))
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def change(path: Path, **fields: Any) -> None:
    """Give a JSON file of a base or of a model other fields."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
