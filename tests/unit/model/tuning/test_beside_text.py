"""Models that also read images: only what text passes is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny_models import make_tokenizer
from tests.unit.model.tuning.test_frozen import SIDS, batch, loss_of
from transformers import AutoConfig, AutoModelForCausalLM

from sidtune.config.model import ModelConfig
from sidtune.files.weight_files import load_weights
from sidtune.model.checkpoint_files import save_pretrained
from sidtune.model.dropout import decoder_layers
from sidtune.model.load import load_model, load_outline
from sidtune.model.tuning import TUNINGS
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import extend_vocabulary

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 2}
TEXT = {"num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 1024}
IMAGES = {"image_size": 28, "patch_size": 14}


def make_base(folder: Path) -> Path:
    """Gemma 3 with as many layers for images, which come first, as for texts."""
    tokenizer = make_tokenizer()
    text = {"vocab_size": len(tokenizer), "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1}
    config = AutoConfig.for_model(
        "gemma3",
        text_config={**SHAPE, **TEXT, **text},
        vision_config={**SHAPE, **IMAGES},
        mm_tokens_per_image=4,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tuning", TUNINGS)
def test_layers_for_images_stay_as_they_are(tmp_path: Path, tuning: str) -> None:
    """Every weight that is trained has a gradient: DDP and checkpoints of shards wait for it."""
    base = make_base(tmp_path / "base")
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), SIDS)
    config = ModelConfig.model_validate({"base": str(base), "tuning": tuning})
    model = load_model(config, vocabulary, seed=0)
    assert all("Gemma3" in type(layer).__name__ for layer in decoder_layers(model))
    loss_of(model, batch(vocabulary)).backward()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {n for n, weight in model.named_parameters() if weight.grad is not None}
    assert not any("vision" in name for name, _ in model.named_parameters() if ".lora_" in name)
    outline = load_outline(config, vocabulary, seed=0)
    assert trained == {name for name, weight in outline.named_parameters() if weight.requires_grad}
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.bfloat16)
    saved, given = load_weights(tmp_path / "saved"), load_weights(base)
    beside = [name for name in given if "vision" in name or "projector" in name]
    assert len(beside) > 30
    assert all(torch.equal(saved[name], given[name]) for name in beside)
