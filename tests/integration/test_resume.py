"""Resuming a run: exact, and refused where it would be another run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.running import Crash, dies, metrics, run
from tests.tiny_data import tiny_config
from tests.tiny_models import change, make_base

from sidtune.base.errors import UserError
from sidtune.files.weight_files import load_weights
from sidtune.model import bf16
from sidtune.model.dropout import RATES
from sidtune.runs import checkpoints, output
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import load_config
from sidtune.training import precision
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer


@pytest.mark.parametrize("tuning", ["full", "frozen"])
# An epoch has seven steps: the checkpoint lies inside the first, at the border, or inside the
# second.
@pytest.mark.parametrize(
    ("architecture", "crash", "every", "plan"),
    [
        ("gpt2", 5, 3, {"group_by": "example"}),
        ("gpt2", 9, 7, {"group_by": "user"}),
        ("gpt2", 13, 5, {"layout": "bucketed"}),
        ("qwen3", 5, 3, {"group_by": "example", "workers": 0}),
        ("qwen3", 9, 7, {"layout": "padded"}),
        ("gemma2", 9, 7, {"weight_decay": 0.1}),
    ],
    ids=[
        "its-own-dropout",
        "its-own-border",
        "second-epoch",
        "mid-epoch",
        "border",
        "decay",
    ],
)
def test_resume_is_exact(
    tmp_path: Path,
    architecture: str,
    tuning: str,
    crash: int,
    every: int,
    plan: dict[str, Any],
) -> None:
    base = make_base(
        tmp_path / "base",
        architecture,
        dtype=torch.bfloat16 if tuning == "frozen" else torch.float32,
    )
    if architecture == "gpt2":
        change(base / "config.json", resid_pdrop=0.2, embd_pdrop=0.1, attn_pdrop=0.1)
    steps = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, **plan}
    # Rates of ours, for the bases without a dropout of their own.
    rates = {} if architecture == "gpt2" else dict.fromkeys(RATES, 0.1)
    shared: dict[str, Any] = {
        "model": {"base": str(base), "tuning": tuning, **rates},
        "training": steps,
        "eval": {"every": every, "patience": 3},
        "tasks": {
            "sid_next": {"weight": 1.5},
            "item_feature": {"directions": "one"},
            "title_to_sid": None,
        },
    }
    whole = tiny_config(tmp_path, output_dir=str(tmp_path / "whole"), **shared)
    run(whole)
    broken = tiny_config(tmp_path, output_dir=str(tmp_path / "broken"), **shared)
    dies(broken, crash)
    checkpoint = crash // every * every
    assert (broken.output_dir / f"checkpoint-{checkpoint}").is_dir()
    run(broken)
    assert metrics(broken) == metrics(whole)
    for name, value in load_weights(whole.output_dir / "final_checkpoint").items():
        assert torch.equal(value, load_weights(broken.output_dir / "final_checkpoint")[name]), name


def crashed(config: Config, monkeypatch: pytest.MonkeyPatch, step: int = 7) -> None:
    """Leave a run behind that died in the middle."""

    def crashing(
        self: StepTrainer, logs: dict[str, float], start_time: float | None = None
    ) -> None:
        if self.state.global_step == step:
            raise Crash
        ordinary(self, logs, start_time)

    ordinary = StepTrainer.log
    with monkeypatch.context() as patch:
        patch.setattr(StepTrainer, "log", crashing)
        with pytest.raises(Crash):
            train(config)


def test_resume_skips_an_incomplete_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = tiny_config(tmp_path, eval={"every": 3, "save_total_limit": 3})
    crashed(config, monkeypatch)
    newest = config.output_dir / "checkpoint-6"
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    run(config)
    output = " ".join(capsys.readouterr().out.split())
    assert "checkpoint-6, which is incomplete: model.safetensors has" in output.replace("- 6", "-6")
    assert "checkpoint-3" in output


def test_without_any_complete_checkpoint_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path)
    crashed(config, monkeypatch)
    only = config.output_dir / "checkpoint-5"
    (only / "optimizer.pt").unlink()
    with pytest.raises(
        UserError, match=r"no checkpoint is complete \(checkpoint-5: optimizer.pt is missing\)"
    ):
        train(config)
    with pytest.raises(UserError, match="the checkpoint is incomplete"):
        train(config, resume=str(only))
    with pytest.raises(UserError, match="no such folder"):
        train(config, resume=str(only / "nothing"))


def test_a_result_is_no_model_until_all_of_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked: list[str] = []
    ordinary = output._link

    def link(source: Path, target: Path) -> None:
        linked.append(source.name)
        ordinary(source, target)

    monkeypatch.setattr(output, "_link", link)
    run(tiny_config(tmp_path, training={"max_steps": 1, "batch_size": 16}))
    assert {"model.safetensors", "tokenizer.json", "sid_catalogue.parquet"} < set(linked)
    assert linked[-1] == "config.json"


def test_a_checkpoint_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = tiny_config(tmp_path, eval={"every": 2, "save_total_limit": 9})
    crashed(config, monkeypatch)
    result = run(config, resume=str(config.output_dir / "checkpoint-4"))
    assert "Resuming from" in capsys.readouterr().out
    assert result.steps == 20
    with pytest.raises(UserError, match="already contains this run, finished"):
        train(config, resume=str(config.output_dir / "checkpoint-4"))


def test_a_run_that_died_while_writing_its_result_writes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else: its last checkpoint, inside an epoch, may be the only one, and is not saved
    over itself.
    """
    published: list[str] = []
    ordinary = checkpoints.publish

    def publish(partial: Path, final: Path) -> None:
        published.append(final.name)
        ordinary(partial, final)

    for module in (checkpoints, output):
        monkeypatch.setattr(module, "publish", publish)
    config = tiny_config(tmp_path, training={"max_steps": 4, "batch_size": 16})
    first = run(config)
    assert published == ["checkpoint-4", "final_checkpoint"]
    weights = load_weights(first.folder / "final_checkpoint")
    shutil.move(first.folder / "final_checkpoint", first.folder / ".final_checkpoint.partial")
    (first.folder / "model.safetensors").unlink()
    second = run(config)
    assert published[2:] == ["final_checkpoint"]
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
        (
            {"training": {"batch_size": 16, "weight_decay": 0.1, "decay_embeddings": False}},
            "training.decay_embeddings",
        ),
        ({"model": {"residual_dropout": 0.1}}, "model.residual_dropout"),
        ({"seed": 5}, "seed"),
        ({"model": {"new_rows": "text"}}, "model.new_rows"),
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


def test_changed_data_and_vocabulary_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    with pytest.raises(UserError, match="already contains this run, finished"):
        train(config)
    with pytest.raises(UserError, match="contains another run"):
        train(config, resume="never")
    other = tmp_path / "documents"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"not empty \(thesis.txt\)"):
        train(tiny_config(tmp_path, output_dir=str(other)))
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("old_format", [False, True], ids=["safetensors", "pytorch_model.bin"])
def test_weights_alone_start_a_new_run(tmp_path: Path, capsys: Any, old_format: bool) -> None:
    first = tiny_config(
        tmp_path, training={"max_steps": 8, "batch_size": 16, "learning_rate": 0.01}
    )
    result = run(first)
    weights = tmp_path / "weights"
    weights.mkdir()
    state = load_weights(result.folder / "final_checkpoint")
    if old_format:
        torch.save(state, weights / "pytorch_model.bin")
    else:
        (weights / "model.safetensors").write_bytes(
            (result.folder / "model.safetensors").read_bytes()
        )
    second = tiny_config(
        tmp_path, output_dir=str(tmp_path / "second"), training={"max_steps": 1, "batch_size": 16}
    )
    again = run(second, resume=str(weights))
    assert again.first_loss == pytest.approx(result.best_loss, rel=1e-4)
    assert "start from scratch" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("section", "key", "old", "new"),
    [
        ("training", "epochs", 2, 9),
        ("training", "max_steps", None, 9),
        ("training", "min_lr_ratio", 0.1, 0.9),
        ("eval", "every", 5, 4),
        ("eval", "max_rows", 5000, 6),
        ("eval", "task_rows", 200, 6),
        ("eval", "patience", None, 2),
    ],
)
def test_another_schedule_or_choice_of_the_best_is_refused(
    tmp_path: Path, section: str, key: str, old: object, new: object
) -> None:
    sections: dict[str, Any] = {
        "training": {"warmup": 2},
        "tasks": {"sid_next": None, "title_to_sid": None},
    }
    dies(tiny_config(tmp_path, **sections), 7)
    with pytest.raises(UserError, match=f"{section}.{key}: {old} in the checkpoint, {new} now"):
        train(tiny_config(tmp_path, **{**sections, section: {key: new}}))


def test_a_run_that_goes_on_elsewhere_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """It begins on a CPU with bfloat16 instructions, where even this small model profits, and goes
    on without them.
    """
    monkeypatch.setattr(precision, "CPU_HIDDEN", 1)
    monkeypatch.setattr(bf16, "cpu_features", lambda: {"avx512_bf16"})
    whole = tiny_config(tmp_path, output_dir=str(tmp_path / "whole"))
    run(whole)
    assert "bf16 autocast on cpu" in " ".join(capsys.readouterr().out.split())
    broken = tiny_config(tmp_path)
    dies(broken, 7)
    monkeypatch.setattr(bf16, "cpu_features", set)
    capsys.readouterr()
    run(broken)
    said = capsys.readouterr()
    assert "bf16 autocast on cpu" in " ".join(said.out.split())
    assert "this CPU has no bfloat16 instructions" in " ".join(said.err.split())
    assert metrics(broken) == metrics(whole)
    assert load_config(broken.output_dir / "config.yaml").training.precision == "auto"
    new = tiny_config(tmp_path, output_dir=str(tmp_path / "new"), training={"max_steps": 1})
    run(new)
    assert "fp32 on cpu" in " ".join(capsys.readouterr().out.split())


def test_a_frozen_run_writes_its_base_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that goes on links from the checkpoint that it has verified; what is hashed is not
    the base again.
    """
    hashed: list[Path] = []
    ordinary = checkpoints.file_digest

    def digest(path: Path) -> str:
        hashed.append(path)
        return ordinary(path)

    config = tiny_config(
        tmp_path, model={"tuning": "frozen"}, eval={"every": 2, "save_total_limit": 9}
    )
    shard = "model-00001-of-00002.safetensors"
    dies(config, 5)
    monkeypatch.setattr(checkpoints, "file_digest", digest)
    run(config)
    found = [folder / shard for folder in checkpoints.checkpoints(config.output_dir)]
    assert len(found) == 9
    assert len({path.stat().st_ino for path in found}) == 1
    assert not [path for path in hashed if path.name == shard and path.parent.name.startswith(".")]
    assert all(checkpoints.damage(path.parent) is None for path in found)
