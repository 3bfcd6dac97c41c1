"""Training that notices: what is not finite, what does not fit, what has changed, and a loss that
jumps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.running import losses, metrics, run
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base, make_tokenizer
from torch import Tensor

from sidtune.base.errors import OneProcessError, UserError
from sidtune.batching.steps import Steps
from sidtune.files.weight_files import load_weights
from sidtune.inputs import Inputs
from sidtune.model.load import load_model
from sidtune.runs.checkpoints import newest_complete
from sidtune.tasks.config import Config
from sidtune.training.arguments import training_arguments
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.make_steps import make_steps
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer

# SID tokens come behind the base's own, in order; this one is in some examples of a step and not in
# others.
FIRST_SID_ID, FIRST_SID = len(make_tokenizer()), "<a_0>"
Answer = tuple[Tensor, Tensor]


def infinite_loss(loss: Tensor, by_task: Tensor) -> Answer:
    """Its gradient is finite, as that of a clipped loss can be."""
    return loss, by_task + math.inf


def infinite_gradient(loss: Tensor, by_task: Tensor) -> Answer:
    if loss.requires_grad:
        loss = loss.clone()
        loss.register_hook(lambda gradient: gradient * math.nan)
    return loss, by_task


def break_step(
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    broken: Callable[[Tensor, Tensor], Answer],
    token: int,
) -> None:
    """Passes of this step, from 0, that hold the token go wrong."""
    forward, step, now = LabelLoss.forward, StepTrainer.training_step, [0]

    def noting(self: StepTrainer, *args: Any, **kwargs: Any) -> Tensor:
        now[0] = self.state.global_step
        return step(self, *args, **kwargs)

    def breaking(self: LabelLoss, input_ids: Tensor, *args: Any, **kwargs: Any) -> Answer:
        answer = forward(self, input_ids, *args, **kwargs)
        bad = self.model.training and now[0] == number and bool((input_ids == token).any())
        return broken(*answer) if bad else answer

    monkeypatch.setattr(StepTrainer, "training_step", noting)
    monkeypatch.setattr(LabelLoss, "forward", breaking)


def steps_of(config: Config) -> Steps:
    inputs = Inputs(config)
    model = load_model(config.model, inputs.vocabulary, config.seed)
    return make_steps(
        config, inputs.mixture.train(), model, inputs.vocabulary, training_arguments(config)
    )


@pytest.mark.parametrize(
    ("broken", "what", "tuning"),
    [
        (infinite_loss, "loss", "full"),
        (infinite_gradient, "gradient", "full"),
        (infinite_loss, "loss", "frozen"),
    ],
)
def test_what_is_not_finite_stops_the_run_and_is_listed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[Tensor, Tensor], Answer],
    what: str,
    tuning: str,
) -> None:
    model = {"base": str(tmp_path / "base"), "tuning": tuning}
    config = tiny_config(tmp_path, model=model, eval={"every": 1, "patience": None})
    break_step(monkeypatch, 3, broken, FIRST_SID_ID)
    with pytest.raises(UserError, match=f"step 4: the {what} is not finite") as refusal:
        train(config)
    monkeypatch.undo()
    for word in (
        "training.learning_rate",
        "training.precision: fp32",
        "--resume",
        "docs/troubleshooting.md",
    ):
        assert word in refusal.value.hint
    assert [entry["step"] for entry in metrics(config)][-1] == 3, (
        "nothing was logged or saved of step 4"
    )
    checkpoint, skipped = newest_complete(config.output_dir)
    assert checkpoint is not None
    assert (checkpoint.name, skipped) == ("checkpoint-3", [])
    assert all(weight.isfinite().all() for weight in load_weights(checkpoint).values())
    listed = [
        json.loads(line)
        for line in (config.output_dir / "non_finite.jsonl").read_text().splitlines()
    ]
    steps = steps_of(config)
    expected = [
        index for index in steps.share(3).tolist() if FIRST_SID_ID in steps.corpus[index][0]
    ]
    assert 0 < len(expected) < 16
    assert f"{len(expected)} of its 16 examples" in str(refusal.value)
    names = [task.name for task in steps.corpus.tasks]
    starts = {name: sum(map(len, steps.corpus.tasks[:n])) for n, name in enumerate(names)}
    assert [starts[entry["task"]] + entry["example"] for entry in listed] == expected
    for entry in listed:
        assert entry["step"] == 4
        assert FIRST_SID in entry["text"]
        if what == "loss":
            assert (entry["loss"], entry["gradient_norm"]) == ("inf", None)
        else:
            assert 0 < entry["loss"] < 20
            assert entry["gradient_norm"] == "nan"


def test_a_run_goes_on_once_the_cause_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"eval": {"every": 3, "patience": None}}
    whole = tiny_config(tmp_path, output_dir=str(tmp_path / "whole"), **options)
    run(whole)
    config = tiny_config(tmp_path, **options)
    break_step(monkeypatch, 4, infinite_loss, FIRST_SID_ID)
    with pytest.raises(UserError, match="step 5"):
        train(config)
    monkeypatch.undo()
    run(config)
    assert metrics(config) == metrics(whole)


def test_a_learning_rate_that_is_far_too_high_is_named(tmp_path: Path) -> None:
    """Warmup starts at a rate of 0: the second step does the harm, the third one shows it."""
    training = {"epochs": 1, "batch_size": 16, "learning_rate": 1e36, "warmup": 2}
    with pytest.raises(UserError, match=r"step 3: the (loss|gradient) is not finite") as refusal:
        train(tiny_config(tmp_path, training=training))
    assert "16 of its 16 examples" in str(refusal.value)
    assert refusal.value.hint.startswith("Lower training.learning_rate")


def test_weights_that_are_broken_before_are_named(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", dtype=torch.float32)
    ordinary = LabelLoss.__init__

    def breaking(self: LabelLoss, model: Any, *args: Any) -> None:
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3, 4] = math.nan
        ordinary(self, model, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelLoss, "__init__", breaking)
        with pytest.raises(
            UserError, match=r"step 1.*themselves.*layers\.1\.mlp\.up_proj\.weight"
        ) as refusal:
            train(tiny_config(tmp_path, model={"base": str(base)}))
    assert "other weights" in refusal.value.hint


def test_a_validation_that_is_not_finite_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = StepTrainer._validation_loss

    def breaking(self: StepTrainer, *args: Any) -> float:
        return math.nan if self.state.global_step == 10 else ordinary(self, *args)

    monkeypatch.setattr(StepTrainer, "_validation_loss", breaking)
    config = tiny_config(tmp_path)
    with pytest.raises(
        UserError, match=r"after step 10: the validation metric sid_next_loss is not finite"
    ):
        train(config)
    newest, _ = newest_complete(config.output_dir)
    assert newest == config.output_dir / "checkpoint-5"
    assert not (config.output_dir / "final_checkpoint").exists()


class SmallGpu:
    """Passes of more tokens than fit run out of memory, once they have done half their work."""

    def __init__(self, fitting: int) -> None:
        self.fitting, self.failed, self.sizes = fitting, 0, list[int]()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ordinary = LabelLoss.forward

        def limited(objective: LabelLoss, input_ids: Tensor, *args: Any, **kwargs: Any) -> Answer:
            loss, by_task = ordinary(objective, input_ids, *args, **kwargs)
            if objective.model.training:
                if input_ids.numel() > self.fitting:
                    loss.backward()
                    self.failed += 1
                    raise torch.OutOfMemoryError(
                        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is small. See"
                    )
                self.sizes.append(input_ids.numel())
            return loss, by_task

        monkeypatch.setattr(LabelLoss, "forward", limited)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("layout", ["tree", "bucketed"])
def test_a_step_that_does_not_fit_runs_again_in_smaller_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, layout: str, workers: int
) -> None:
    training = {
        "max_steps": 4,
        "batch_size": 16,
        "learning_rate": 0.01,
        "layout": layout,
        "workers": workers,
    }
    plain = tiny_config(tmp_path, output_dir=str(tmp_path / "plain"), training=training)
    run(plain)
    small = SmallGpu(fitting=300)
    small.install(monkeypatch)
    config = tiny_config(tmp_path, training=training)
    run(config)
    assert small.failed > 0
    assert len(small.sizes) > 4
    for left, right in zip(metrics(config), metrics(plain), strict=True):
        assert left == pytest.approx(right, rel=1e-4)
    weights = load_weights(plain.output_dir)
    for name, value in load_weights(config.output_dir).items():
        torch.testing.assert_close(value, weights[name], rtol=1e-2, atol=2e-3)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("out of GPU memory; retrying") == small.failed <= 4, (
        "and no step after it fails again"
    )


@pytest.mark.parametrize(
    ("training", "named"),
    [
        ({}, "Set training.max_tokens to a number"),
        ({"max_tokens": 4000}, "Lower training.max_tokens, now 4000"),
        (
            {"layout": "padded", "gradient_checkpointing": True},
            "Lower training.micro_batch_size, now 4",
        ),
    ],
)
def test_what_never_fits_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: dict[str, Any], named: str
) -> None:
    small = SmallGpu(fitting=10)
    small.install(monkeypatch)
    config = tiny_config(tmp_path, training={"batch_size": 16, "max_steps": 2, **training})
    with pytest.raises(OneProcessError) as refusal:
        train(config)
    said, hint = refusal.value.message, refusal.value.hint
    assert said == "the GPU ran out of memory: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert hint.startswith(named)
    assert ("training.gradient_checkpointing: true" in hint) != (
        "gradient_checkpointing" in training
    )
    assert "model.tuning: lora" in hint
    assert (small.failed == 1) == bool(training), "only `auto` tries again"


def test_a_frozen_weight_that_changes_stops_the_run_before_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"base": str(tmp_path / "base"), "tuning": "frozen"}
    config = tiny_config(
        tmp_path, model=model, eval={"every": 3, "save_total_limit": 9, "patience": None}
    )
    ordinary = StepTrainer.training_step

    def meddling(self: StepTrainer, *args: Any, **kwargs: Any) -> Tensor:
        if self.state.global_step == 7:
            self.language_model.model.layers[1].mlp.up_proj.weight.data[3, 4] += 1e-3
        return ordinary(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "training_step", meddling)
    with pytest.raises(
        OneProcessError, match=r"step 9: 1 of \d+ frozen weights .* model\.layers\.1\.mlp\.up_proj"
    ):
        train(config)
    monkeypatch.undo()
    newest, skipped = newest_complete(config.output_dir)
    assert newest is not None
    assert (newest.name, skipped) == ("checkpoint-6", [])
    assert not list(config.output_dir.glob(".*.partial"))
    run(config)


def test_the_result_is_held_against_the_checksums_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, model={"base": str(tmp_path / "base"), "tuning": "frozen"})
    ordinary = StepTrainer._load_best_model

    def meddling(self: StepTrainer) -> None:
        ordinary(self)
        self.language_model.model.norm.weight.data[0] += 1

    monkeypatch.setattr(StepTrainer, "_load_best_model", meddling)
    with pytest.raises(OneProcessError, match=r"frozen weights have changed.*model\.norm\.weight"):
        train(config)
    assert not (config.output_dir / "model.safetensors").exists()


@pytest.mark.parametrize("harmed", [False, True])
def test_a_loss_that_jumps_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, harmed: bool
) -> None:
    training = {"max_steps": 45, "batch_size": 16, "learning_rate": 0.003}
    config = tiny_config(tmp_path, training=training, eval={"every": 45})
    ordinary = StepTrainer.training_step

    def harming(self: StepTrainer, *args: Any, **kwargs: Any) -> Tensor:
        if harmed and self.state.global_step == 30:
            self.language_model.get_input_embeddings().weight.data.mul_(-4)
        return ordinary(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "training_step", harming)
    run(config)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("“The loss jumps” in docs/troubleshooting.md") == harmed
    assert "The loss does not fall" not in said
    assert (max(losses(config)[30:]) > 1.25 * losses(config)[29]) is harmed
