"""The moving average of weights, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import make_config
from torch import nn
from transformers import AutoModelForCausalLM, TrainerState, set_seed

from sidtune.base.errors import UserError
from sidtune.model.tuning.frozen import freeze, sid_rows
from sidtune.training.averaging import TRAINED_WEIGHTS, WeightAverage


def single(value: float) -> Any:
    """A model of one weight."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_three_steps_by_hand() -> None:
    """Decays 2/11 and 3/12 of the ramp, then 0.3, which is below 4/13: 0 → 9 → 11.25 → 10.375."""
    model = single(0.0)
    average = WeightAverage(model, decay=0.3)
    for step, (weight, expected) in enumerate(
        [(11.0, 9.0), (12.0, 11.25), (10.0, 10.375)], start=1
    ):
        nn.init.constant_(model.weight, weight)
        average.update(step)
        assert average.averages[0].item() == pytest.approx(expected)
        assert model.weight.item() == weight
    with average.applied():
        assert model.weight.item() == pytest.approx(10.375)
    assert model.weight.item() == 10


def test_it_gives_the_weights_back_after_an_error() -> None:
    model = single(1.0)
    average = WeightAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 3.0)

    def failing() -> None:
        with average.applied():
            assert model.weight.item() == 1
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        failing()
    assert model.weight.item() == 3


@pytest.mark.parametrize(("best", "left"), [(None, 2.0), ("checkpoint-1", 3.0)])
def test_without_a_best_model_the_last_average_is_left(best: str | None, left: float) -> None:
    """Trainer has loaded the best one by then, if there is one."""
    model = single(1.0)
    average = WeightAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 3.0)
    average.averages[0].fill_(2.0)
    nothing: Any = None
    average.on_train_end(nothing, TrainerState(best_model_checkpoint=best), nothing)
    assert model.weight.item() == left


def test_it_holds_trained_weights_alone() -> None:
    set_seed(0)
    model: Any = AutoModelForCausalLM.from_config(make_config("qwen3", False, 64))
    full = WeightAverage(model, 0.9)
    assert sum(average.numel() for average in full.averages) == sum(
        p.numel() for p in model.parameters()
    )
    freeze(model.bfloat16(), torch.arange(30, 40))
    frozen = WeightAverage(model, 0.9)
    assert [average.shape for average in frozen.averages] == [
        rows.shape for rows in sid_rows(model).values()
    ]
    assert all(average.dtype == torch.float32 for average in frozen.averages)


def test_a_checkpoint_without_the_trained_weights_is_refused(tmp_path: Path) -> None:
    average = WeightAverage(single(1.0), 0.9)
    with pytest.raises(UserError, match="damaged weights"):
        average.restore(tmp_path)
    average.save(tmp_path)
    (tmp_path / TRAINED_WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged weights"):
        average.restore(tmp_path)
