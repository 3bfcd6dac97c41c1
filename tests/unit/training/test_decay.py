"""Weight decay: which parameters the optimizer's groups give it to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import ARCHITECTURES, make_config, make_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainingArguments

from sidtune.model.tuning.frozen import freeze, sid_rows
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.trainer import StepTrainer

ROWS, DECAY = 64, 0.1


def decayed(model: PreTrainedModel, folder: Path, embeddings: bool) -> set[int]:
    """Ids of the parameters that decay; all others that are trained stand in the group that does
    not.
    """
    no_steps: Any = []
    trainer = StepTrainer(
        model=LabelLoss(model, 1),
        arguments=TrainingArguments(str(folder), weight_decay=DECAY, use_cpu=True, report_to=[]),
        steps=no_steps,
        tasks=["sid_next"],
        valid=[],
        tokenizer=make_tokenizer(),
        identity={},
        save_total_limit=1,
        bundle=pytest.fail,
        ranking=None,
        callbacks=[],
        decay_embeddings=embeddings,
    )
    groups = trainer.create_optimizer().param_groups
    assert [group["weight_decay"] for group in groups] == [DECAY, 0]
    found = [{id(parameter) for parameter in group["params"]} for group in groups]
    assert found[0] | found[1] == {
        id(parameter) for parameter in model.parameters() if parameter.requires_grad
    }
    assert not found[0] & found[1]
    return found[0]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_norms_and_biases_never_decay_and_rows_of_tokens_as_asked(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    model: Any = AutoModelForCausalLM.from_config(make_config(architecture, tied, ROWS))
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    assert norms
    spared = {id(parameter) for norm in norms for parameter in norm.parameters()}
    spared |= {
        id(parameter) for name, parameter in model.named_parameters() if name.endswith("bias")
    }
    rows = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    assert len(rows) == (1 if tied else 2)
    everything = {id(parameter) for parameter in model.parameters()}
    assert decayed(model, tmp_path, True) == everything - spared
    assert decayed(model, tmp_path, False) == everything - spared - rows


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("embeddings", [True, False])
def test_frozen_rows_decay_as_asked(tmp_path: Path, tied: bool, embeddings: bool) -> None:
    model: Any = AutoModelForCausalLM.from_config(make_config("qwen3", tied, ROWS))
    freeze(model, torch.arange(30, 40))
    rows = {id(row) for row in sid_rows(model).values()}
    assert decayed(model, tmp_path, embeddings) == (rows if embeddings else set())
