"""Whole training runs on a tiny shop: one loss whatever the layout, exact resume, plain results."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.running import dies, losses, metrics, run
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from sidtune.base.errors import UserError
from sidtune.batching.steps import StepLoader, Steps
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.files.weight_files import load_weights
from sidtune.tasks.config_file import load_config
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer


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


def test_another_loss_trains_alike_in_every_layout_and_is_validated_as_the_plain_one(
    tmp_path: Path,
) -> None:
    loss = {"over": "allowed", "label_smoothing": 0.05}
    kinds: list[dict[str, Any]] = [{"layout": "padded"}, {"layout": "bucketed"}, {"layout": "tree"}]
    logs = []
    for number, kind in enumerate([{}, *kinds]):
        training = {"max_steps": 6, "batch_size": 16, "learning_rate": 0.01, **kind}
        options = {
            "output_dir": str(tmp_path / f"run{number}"),
            "training": training,
            "eval": {"every": 6},
        }
        config = tiny_config(tmp_path, **options, **({"loss": loss} if number else {}))
        run(config)
        logs.append(metrics(config))
    validated = [
        [entry["eval_sid_next_loss"] for entry in log if "eval_sid_next_loss" in entry]
        for log in logs
    ]
    trained = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    for other in (2, 3):
        assert trained[other] == pytest.approx(trained[1], rel=1e-4)
    assert [first for first, *_ in validated[1:]] == pytest.approx(
        [validated[0][0]] * 3, rel=1e-5
    ), "before training"
    assert trained[1][0] != pytest.approx(trained[0][0], rel=1e-2)
    assert all(last < first for first, last in validated)


def test_the_result_is_an_ordinary_model_that_writes_sids(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, training={"epochs": 12, "batch_size": 16, "learning_rate": 0.01, "warmup": 2}
    )
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
    assert not list(result.folder.glob(".*.partial")), "nothing half-written is left"
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(result.folder),
        AutoTokenizer.from_pretrained(final),
    )
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


def test_a_run_is_used_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was started with relative paths, from a folder of its own."""
    monkeypatch.chdir(tmp_path)
    sections = {name: f"data/{name}.csv" for name in ("train", "valid", "test")}
    sections |= {"items": "data/shop.item.json", "index": "data/shop.index.json"}
    config = tiny_config(
        tmp_path,
        output_dir="run",
        model={"base": "base"},
        data=sections,
        encoding={"cache_dir": "cache"},
        training={"max_steps": 4, "batch_size": 16},
        eval={"every": 2},
    )
    dies(config, 3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(load_config(tmp_path / "run" / "config.yaml"))
    report = evaluate(EvaluationRequest(tmp_path / "run"))
    assert report is not None
    assert report.rankers["model"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_task_losses_are_logged_and_average_to_the_loss(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        tasks={"sid_next": None, "title_next": None},
        training={"batch_size": 16, "max_steps": 2},
    )
    run(config)
    entry = next(entry for entry in metrics(config) if "loss" in entry)
    low, high = sorted([entry["sid_next_loss"], entry["title_next_loss"]])
    assert low < entry["loss"] < high
    names = {key for entry in metrics(config) for key in entry if key.startswith("eval_")}
    assert names == {"eval_sid_next_loss", "eval_title_next_loss"}


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
    """A learning rate that diverges: training stops after `patience` evaluations and the best
    weights are kept.
    """
    training = {"epochs": 30, "batch_size": 16, "learning_rate": 3.0, "warmup": 4}
    config = tiny_config(tmp_path, training=training, eval={"every": 2, "patience": 2})
    result = run(config)
    curve = [
        entry["eval_sid_next_loss"] for entry in metrics(config) if "eval_sid_next_loss" in entry
    ][1:]
    best = curve.index(min(curve))
    assert len(curve) == best + 3, "two evaluations without a new best, then stop"
    assert result.best_loss == min(curve)
    saved, checkpoint = (
        load_weights(result.folder),
        load_weights(config.output_dir / f"checkpoint-{2 * (best + 1)}"),
    )
    assert all(torch.equal(saved[name], checkpoint[name]) for name in saved)


def test_a_dry_run_writes_nothing_and_names_the_plan(tmp_path: Path, capsys: Any) -> None:
    config = tiny_config(tmp_path, encoding={"cutoff_len": 40})
    assert train(config, dry_run=True) is None
    output = " ".join(capsys.readouterr().out.split())
    assert not config.output_dir.exists()
    for word in (
        "examples truncated to encoding.cutoff_len",
        "dropped that do not fit even so",
        "longest",
        "steps",
        "epochs",
        "parameters trained",
        "estimated memory",
    ):
        assert word in output
    found = re.search(
        r"layout tree, examples by user: (\S+) tokens per step and process, (\S+) after sharing",
        output,
    )
    assert found
    before, after = (int(number.replace(",", "")) for number in found.groups())
    assert 0.2 * before < after < before


def test_waiting_for_steps_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers, a step that is slow to prepare is waited for."""
    ordinary, loader = Steps.__getitem__, StepTrainer.get_train_dataloader

    def slow(self: Steps, number: int) -> Any:
        time.sleep(0.5)
        return ordinary(self, number)

    def slow_from_here(self: StepTrainer) -> StepLoader:
        monkeypatch.setattr(Steps, "__getitem__", slow)
        return loader(self)

    # The plan looks at some steps too, before training begins.
    monkeypatch.setattr(StepTrainer, "get_train_dataloader", slow_from_here)
    config = tiny_config(tmp_path, training={"max_steps": 2, "batch_size": 16, "workers": 0})
    run(config)
    lines = [
        json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()
    ]
    shares = [line["waiting"] for line in lines if "loss" in line]
    assert len(shares) == 2
    assert all(0.01 < share < 1 for share in shares)


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
        config = tiny_config(
            tmp_path, output_dir=str(tmp_path / name), training=training, model=model
        )
        calls.clear()
        run(config)
        curves.append(losses(config))
        counts.append(sum(calls))
    assert counts[1] == 2 * counts[0]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_chat_responses_stop_generation(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings["chat_template"] = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<pad>{% endfor %}"
    )
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    config = tiny_config(
        tmp_path, template={"format": "chat"}, training={"max_steps": 1, "batch_size": 16}
    )
    run(config)
    saved = json.loads((config.output_dir / "generation_config.json").read_text())
    pad = AutoTokenizer.from_pretrained(config.output_dir).pad_token_id
    assert pad in saved["eos_token_id"]


def test_bf16_trains_alike(tmp_path: Path) -> None:
    extra = {"precision": "bf16"}
    plain = tiny_config(tmp_path, training={"max_steps": 3, "batch_size": 16})
    run(plain)
    other = tiny_config(
        tmp_path,
        output_dir=str(tmp_path / "other"),
        training={"max_steps": 3, "batch_size": 16, **extra},
    )
    run(other)
    assert losses(other) == pytest.approx(losses(plain), rel=3e-2)
    assert losses(other) != losses(plain)


def test_from_scratch_follows_the_seed(tmp_path: Path) -> None:
    def first_loss(name: str, seed: int) -> float:
        base = {"base": str(tmp_path / "base"), "from_scratch": True}
        training = {"max_steps": 1, "batch_size": 16}
        config = tiny_config(
            tmp_path, output_dir=str(tmp_path / name), seed=seed, model=base, training=training
        )
        return run(config).first_loss

    assert first_loss("one", 1) == first_loss("same", 1)
    assert first_loss("one more", 2) != first_loss("again", 1)


def test_no_worker_outlives_a_run(tmp_path: Path) -> None:
    """Nor does it wait for the garbage collector, where the traceback of an error holds it."""
    before = set(multiprocessing.active_children())
    training = {"max_steps": 4, "batch_size": 16, "learning_rate": 1e36, "workers": 1}
    with pytest.raises(UserError, match="is not finite") as refusal:
        train(tiny_config(tmp_path, training=training))
    assert refusal.tb is not None
    assert set(multiprocessing.active_children()) <= before
