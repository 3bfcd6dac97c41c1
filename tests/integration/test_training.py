"""Whole training runs on a tiny shop: one loss whatever the layout, exact resume, plain results."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from sidtune.batching.steps import Steps
from sidtune.config import Config, load_config
from sidtune.errors import UserError
from sidtune.model.checkpoint_files import load_weights
from sidtune.training.train import Result, train
from sidtune.training.trainer import StepTrainer

QUIET = {
    "waiting",
    "examples_per_second",
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
}


def run(config: Config, **options: Any) -> Result:
    result = train(config, **options)
    assert result is not None
    return result


def metrics(config: Config) -> list[dict[str, float]]:
    lines = (config.output_dir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in QUIET} for line in lines if "train_runtime" not in line
    ]


def losses(config: Config) -> list[float]:
    return [entry["loss"] for entry in metrics(config) if "loss" in entry]


def test_layouts_train_alike(tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [
        {"layout": "padded", "micro_batch_size": 3},
        {"layout": "bucketed", "max_tokens": 150},
        {"layout": "bucketed"},
        {"layout": "tree", "max_tokens": 150},
        {"layout": "tree", "workers": 0},
    ]
    curves, weights = [], []
    for number, kind in enumerate(kinds):
        training = {"epochs": 1, "batch_size": 16, "learning_rate": 0.01, **kind}
        config = tiny_config(tmp_path, output_dir=str(tmp_path / f"run{number}"), training=training)
        run(config)
        curves.append(losses(config))
        weights.append(load_weights(config.output_dir / "final_checkpoint"))
    assert len(curves[0]) > 5
    for curve, weight in zip(curves[1:], weights[1:], strict=True):
        assert curve == pytest.approx(curves[0], rel=1e-4)
        for name, value in weight.items():
            torch.testing.assert_close(value, weights[0][name], rtol=1e-2, atol=2e-3)


def test_the_result_is_an_ordinary_model_that_writes_sids(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"epochs": 12, "batch_size": 16, "learning_rate": 0.01, "warmup": 2})
    result = run(config)
    assert result.best_loss < 0.7 * result.first_loss
    final = result.folder / "final_checkpoint"
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):
        assert os.path.samefile(final / name, result.folder / name)
    assert load_config(result.folder / "config.yaml") == load_config(result.folder / "config.yaml")
    assert not list(result.folder.glob(".*")), "nothing half-written is left"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(result.folder), AutoTokenizer.from_pretrained(final)
    prompt = "A user's interactions, oldest first:\n<a_0><b_0><c_0>\nThe next item is:\n"
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
    tokens = tokenizer.convert_ids_to_tokens(written.tolist())
    assert [token[:3] for token in tokens] == ["<a_", "<b_", "<c_", "</s"]


def test_the_resolved_configuration_trains_the_same(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 3, "batch_size": 16})
    run(config)
    again = load_config(config.output_dir / "config.yaml", [f"output_dir={tmp_path / 'again'}"])
    run(again)
    assert metrics(again) == metrics(config)


def test_task_losses_are_logged_and_average_to_the_loss(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, tasks={"sid_next": None, "title_next": None}, training={"batch_size": 16, "max_steps": 2}
    )
    run(config)
    entry = next(entry for entry in metrics(config) if "loss" in entry)
    low, high = sorted([entry["sid_next_loss"], entry["title_next_loss"]])
    assert low < entry["loss"] < high
    names = {key for entry in metrics(config) for key in entry if key.startswith("eval_")}
    assert names == {"eval_sid_next_loss", "eval_title_next_loss"}


class Crash(Exception):
    """What a killed run looks like from inside."""


@pytest.mark.parametrize("tuning", ["full", "frozen"])
# An epoch has seven steps: the checkpoint lies inside the first, at the border, or inside the second.
@pytest.mark.parametrize(
    ("architecture", "crash", "every", "plan"),
    [
        ("gpt2", 5, 3, {"group_by": "example", "order": "length"}),
        ("gpt2", 9, 7, {"group_by": "user"}),
        ("gpt2", 13, 5, {"layout": "bucketed"}),
        ("qwen3", 5, 3, {"group_by": "example", "workers": 0}),
        ("qwen3", 9, 7, {"layout": "padded"}),
    ],
    ids=["dropout-mid-epoch", "dropout-border", "dropout-second-epoch", "mid-epoch", "border"],
)
def test_resume_is_exact(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    tuning: str,
    crash: int,
    every: int,
    plan: dict[str, Any],
) -> None:
    base = make_base(tmp_path / "base", architecture, dtype=torch.bfloat16 if tuning == "frozen" else torch.float32)
    if architecture == "gpt2":
        with_dropout(base)
    steps = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, **plan}
    shared: dict[str, Any] = {
        "model": {"base": str(base), "tuning": tuning},
        "training": steps,
        "eval": {"every": every, "patience": 3},
        "tasks": {"sid_next": {"weight": 1.5}, "item_feature": {"directions": "one"}, "title_to_sid": None},
    }
    whole = tiny_config(tmp_path, output_dir=str(tmp_path / "whole"), **shared)
    run(whole)
    broken = tiny_config(tmp_path, output_dir=str(tmp_path / "broken"), **shared)
    ordinary = StepTrainer.training_step

    def crashing(self: StepTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == crash:
            raise Crash
        return ordinary(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "training_step", crashing)
    with pytest.raises(Crash):
        train(broken)
    monkeypatch.undo()
    checkpoint = crash // every * every
    assert (broken.output_dir / f"checkpoint-{checkpoint}").is_dir()
    run(broken)
    assert metrics(broken) == metrics(whole)
    for name, value in load_weights(whole.output_dir / "final_checkpoint").items():
        assert torch.equal(value, load_weights(broken.output_dir / "final_checkpoint")[name]), name


def with_dropout(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config.update(resid_pdrop=0.2, embd_pdrop=0.1, attn_pdrop=0.1)
    (base / "config.json").write_text(json.dumps(config))


def crashed(config: Config, monkeypatch: pytest.MonkeyPatch, step: int = 7) -> None:
    """Leave a run behind that died in the middle."""

    def crashing(self: StepTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.state.global_step == step:
            raise Crash
        ordinary(self, logs, start_time)

    ordinary = StepTrainer.log
    with monkeypatch.context() as patch:
        patch.setattr(StepTrainer, "log", crashing)
        with pytest.raises(Crash):
            train(config)


def test_resume_skips_an_incomplete_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    config = tiny_config(tmp_path, eval={"every": 3, "save_total_limit": 3})
    crashed(config, monkeypatch)
    newest = config.output_dir / "checkpoint-6"
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    run(config)
    output = " ".join(capsys.readouterr().out.split())
    assert "checkpoint-6: it is not complete" in output.replace("- 6", "-6")
    assert "checkpoint-3" in output


def test_without_any_complete_checkpoint_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path)
    crashed(config, monkeypatch)
    only = config.output_dir / "checkpoint-5"
    (only / "optimizer.pt").unlink()
    with pytest.raises(UserError, match=r"no checkpoint is complete \(checkpoint-5\)"):
        train(config)
    with pytest.raises(UserError, match="it is not complete"):
        train(config, resume=str(only))
    with pytest.raises(UserError, match="no such folder"):
        train(config, resume=str(only / "nothing"))


def test_a_checkpoint_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    config = tiny_config(tmp_path, eval={"every": 2, "save_total_limit": 9})
    crashed(config, monkeypatch)
    result = run(config, resume=str(config.output_dir / "checkpoint-4"))
    assert "Resuming from" in capsys.readouterr().out
    assert result.steps == 20
    with pytest.raises(UserError, match="holds this run, finished"):
        train(config, resume=str(config.output_dir / "checkpoint-4"))


def test_a_run_that_died_while_writing_its_result_writes_it_again(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 4, "batch_size": 16})
    first = run(config)
    weights = load_weights(first.folder / "final_checkpoint")
    shutil.move(first.folder / "final_checkpoint", first.folder / ".final_checkpoint.partial")
    (first.folder / "model.safetensors").unlink()
    second = run(config)
    assert second.best_loss == first.best_loss
    again = load_weights(second.folder)
    assert all(torch.equal(again[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"tasks": {"sid_next": None}}, "task fusion"),
        ({"tasks": {"sid_next": {"weight": 2}}}, "weight of sid_next"),
        ({"training": {"batch_size": 8}}, "training.batch_size"),
        ({"training": {"batch_size": 16, "learning_rate": 0.5}}, "training.learning_rate"),
        ({"seed": 5}, "seed"),
    ],
)
def test_resume_of_another_run_is_refused_with_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], named: str
) -> None:
    crashed(tiny_config(tmp_path), monkeypatch)
    with pytest.raises(UserError, match=named) as refusal:
        train(tiny_config(tmp_path, **section))
    assert "in the checkpoint" in str(refusal.value)
    assert (tmp_path / "run" / "checkpoint-5").is_dir(), "nothing was touched"


def test_changed_data_and_vocabulary_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    crashed(config, monkeypatch)
    index = config.data.index
    index.write_text(index.read_text().replace("<c_0>", "<c_9>"))
    train_file = config.data.train
    train_file.write_text("\n".join(train_file.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(UserError) as refusal:
        train(config)
    for name in ("data.index", "data.train", "vocabulary"):
        assert name in str(refusal.value)


def test_a_finished_run_and_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 2, "batch_size": 16})
    run(config)
    with pytest.raises(UserError, match="holds this run, finished"):
        train(config)
    with pytest.raises(UserError, match="holds another run"):
        train(config, resume="never")
    other = tmp_path / "documents"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"not empty \(thesis.txt\)"):
        train(tiny_config(tmp_path, output_dir=str(other)))
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("old_format", [False, True], ids=["safetensors", "pytorch_model.bin"])
def test_weights_alone_start_a_new_run(tmp_path: Path, capsys: Any, old_format: bool) -> None:
    first = tiny_config(tmp_path, training={"max_steps": 8, "batch_size": 16, "learning_rate": 0.01})
    result = run(first)
    weights = tmp_path / "weights"
    weights.mkdir()
    state = load_weights(result.folder / "final_checkpoint")
    if old_format:
        torch.save(state, weights / "pytorch_model.bin")
    else:
        (weights / "model.safetensors").write_bytes((result.folder / "model.safetensors").read_bytes())
    second = tiny_config(tmp_path, output_dir=str(tmp_path / "second"), training={"max_steps": 1, "batch_size": 16})
    again = run(second, resume=str(weights))
    assert again.first_loss == pytest.approx(result.best_loss, rel=1e-4)
    assert "start anew" in " ".join(capsys.readouterr().out.split())


def test_frozen_training_leaves_the_base_bit_for_bit(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False, dtype=torch.bfloat16)
    training = {"epochs": 1, "batch_size": 16, "learning_rate": 0.05, "weight_decay": 0.3}
    config = tiny_config(tmp_path, model={"base": str(base), "tuning": "frozen"}, training=training)
    result = run(config)
    assert result.best_loss < result.first_loss
    before, after = load_weights(base), load_weights(result.folder)
    rows = len(before["model.embed_tokens.weight"])
    for name, value in before.items():
        assert after[name].dtype == torch.bfloat16
        assert torch.equal(after[name][: len(value)], value), name
    sid_ids = AutoTokenizer.from_pretrained(result.folder).convert_tokens_to_ids(["<a_0>", "<b_1>"])
    assert min(sid_ids) >= rows


def test_early_stopping_and_the_best_model(tmp_path: Path) -> None:
    """A learning rate that diverges: training stops after `patience` evaluations and the best weights are kept."""
    training = {"epochs": 30, "batch_size": 16, "learning_rate": 3.0, "warmup": 4}
    config = tiny_config(tmp_path, training=training, eval={"every": 2, "patience": 2})
    result = run(config)
    curve = [entry["eval_sid_next_loss"] for entry in metrics(config) if "eval_sid_next_loss" in entry][1:]
    best = curve.index(min(curve))
    assert len(curve) == best + 3, "two evaluations without a new best, then stop"
    assert result.best_loss == min(curve)
    saved, checkpoint = load_weights(result.folder), load_weights(config.output_dir / f"checkpoint-{2 * (best + 1)}")
    assert all(torch.equal(saved[name], checkpoint[name]) for name in saved)


def test_a_dry_run_writes_nothing_and_names_the_plan(tmp_path: Path, capsys: Any) -> None:
    config = tiny_config(tmp_path)
    assert train(config, dry_run=True) is None
    output = " ".join(capsys.readouterr().out.split())
    assert not config.output_dir.exists()
    for word in ("truncated", "dropped", "longest", "steps", "epochs", "parameters trained", "memory, estimated"):
        assert word in output
    found = re.search(r"layout tree, examples by user: (\S+) tokens a step and process, (\S+) after sharing", output)
    assert found
    before, after = (int(number.replace(",", "")) for number in found.groups())
    assert 0.2 * before < after < before


def test_waiting_for_steps_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers, a step that is slow to prepare is waited for."""
    ordinary = Steps.__getitem__

    def slow(self: Steps, number: int) -> Any:
        time.sleep(0.2)
        return ordinary(self, number)

    monkeypatch.setattr(Steps, "__getitem__", slow)
    config = tiny_config(tmp_path, training={"max_steps": 2, "batch_size": 16, "workers": 0})
    run(config)
    lines = [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]
    shares = [line["waiting"] for line in lines if "loss" in line]
    assert len(shares) == 2
    assert all(0.2 < share < 1 for share in shares)


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_gradient_checkpointing_computes_twice_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    calls: list[int] = []
    ordinary = Qwen3MLP.forward

    def counting(self: Qwen3MLP, x: torch.Tensor) -> torch.Tensor:
        calls.append(self.training)
        return ordinary(self, x)

    monkeypatch.setattr(Qwen3MLP, "forward", counting)
    curves, counts = [], []
    for name, on in (("plain", False), ("checkpointing", True)):
        training = {"max_steps": 3, "batch_size": 16, "gradient_checkpointing": on}
        model = {"base": str(tmp_path / "base"), "tuning": tuning}
        config = tiny_config(tmp_path, output_dir=str(tmp_path / name), training=training, model=model)
        calls.clear()
        run(config)
        curves.append(losses(config))
        counts.append(sum(calls))
    assert counts[1] == 2 * counts[0]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_chat_responses_stop_generation(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<pad>{% endfor %}"
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    config = tiny_config(tmp_path, template={"format": "chat"}, training={"max_steps": 1, "batch_size": 16})
    run(config)
    saved = json.loads((config.output_dir / "generation_config.json").read_text())
    pad = AutoTokenizer.from_pretrained(config.output_dir).pad_token_id
    assert pad in saved["eos_token_id"]


def test_bf16_trains_alike(tmp_path: Path) -> None:
    extra = {"precision": "bf16"}
    plain = tiny_config(tmp_path, training={"max_steps": 3, "batch_size": 16})
    run(plain)
    other = tiny_config(
        tmp_path, output_dir=str(tmp_path / "other"), training={"max_steps": 3, "batch_size": 16, **extra}
    )
    run(other)
    assert losses(other) == pytest.approx(losses(plain), rel=3e-2)
    assert losses(other) != losses(plain)


def test_from_scratch_follows_the_seed(tmp_path: Path) -> None:
    def first_loss(name: str, seed: int) -> float:
        base = {"base": str(tmp_path / "base"), "from_scratch": True}
        training = {"max_steps": 1, "batch_size": 16}
        config = tiny_config(tmp_path, output_dir=str(tmp_path / name), seed=seed, model=base, training=training)
        return run(config).first_loss

    assert first_loss("one", 1) == first_loss("same", 1)
    assert first_loss("one more", 2) != first_loss("again", 1)
