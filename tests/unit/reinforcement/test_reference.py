"""The reference: it stays as the model was, and shares what is not trained."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.tiny_models import make_base
from transformers import AutoModelForCausalLM, PreTrainedModel

from sidtune.model.tuning.frozen import freeze
from sidtune.reinforcement.run import frozen_copy


def model_of(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(make_base(folder / "base"))
    return model


def test_training_the_model_leaves_the_reference_as_it_was(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    reference = frozen_copy(model)
    ids = torch.tensor([[5, 17, 240]])
    before = model(ids).logits
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)
    assert torch.equal(reference(ids).logits, before)
    assert not torch.equal(model(ids).logits, before)
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_frozen_base_is_held_once(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    freeze(model, torch.arange(300, 310))
    reference = frozen_copy(model)
    mine, theirs = dict(model.named_parameters()), dict(reference.named_parameters())
    assert mine.keys() == theirs.keys()
    trained = {name for name, weight in mine.items() if weight.requires_grad}
    assert trained
    assert {name for name in mine if mine[name] is not theirs[name]} == trained
