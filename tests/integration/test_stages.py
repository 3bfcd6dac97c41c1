"""Staged runs: what each stage changes, exact resume in each of them, and what is refused."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.forking import start_ranks
from tests.integration.test_distributed import metrics as steady_metrics
from tests.running import Crash, dies, losses, metrics, run
from tests.tiny_data import tiny_config, tiny_tree
from tests.tiny_models import change, make_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from sidtune.base.errors import UserError
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.files.weight_files import load_weights
from sidtune.inputs import Inputs
from sidtune.model.checkpoint_files import SID_ROWS
from sidtune.runs import output
from sidtune.runs.checkpoints import FINAL
from sidtune.runs.schedule import stage_runs
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import load_config, parse_config
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer

FROZEN_FULL = [
    {"tuning": "frozen", "steps": 6, "learning_rate": 0.05},
    {"tuning": "full", "steps": 5},
]
MIXTURE: dict[str, Any] = {"sid_next": None, "title_to_sid": None}


def staged(folder: Path, stages: list[dict[str, Any]], **sections: Any) -> Config:
    """A tiny shop in stages that all say how long they are."""
    shared: dict[str, Any] = {
        "eval": {"every": 3},
        "tasks": MIXTURE,
        "training": {"workers": 0},
        **sections,
    }
    tree = tiny_tree(folder, stages=stages, **shared)  # type: ignore[arg-type]
    del tree["training"]["epochs"]
    return parse_config(tree, "test")


def evaluated(config: Config) -> list[float]:
    """Validation losses, before the first step and at every evaluation."""
    return [
        entry["eval_sid_next_loss"] for entry in metrics(config) if "eval_sid_next_loss" in entry
    ]


def same_weights(one: Path, other: Path) -> bool:
    left, right = load_weights(one), load_weights(other)
    return left.keys() == right.keys() and all(
        torch.equal(right[name], value) for name, value in left.items()
    )


def test_the_first_stage_changes_new_rows_alone(tmp_path: Path, capsys: Any) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False, dtype=torch.bfloat16)
    config = staged(tmp_path, FROZEN_FULL, model={"base": str(base)})
    result = run(config)
    out, first = config.output_dir, config.output_dir / "stage-1"
    before, between, after = load_weights(base), load_weights(first / FINAL), load_weights(out)
    for name, value in before.items():
        assert torch.equal(between[name][: len(value)], value), name
        assert after[name].dtype == torch.bfloat16
    assert not torch.equal(
        after["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"]
    )
    assert (result.steps, result.folder) == (5, out)
    assert losses(config)[-1] < losses(stage_runs(config)[0])[0]
    printed = " ".join(capsys.readouterr().out.split())
    assert "Stage 1 of 2" in printed
    assert "frozen tuning · 832 of" in printed
    assert "Stage 2 of 2" in printed


def test_a_stage_starts_from_the_rows_as_they_were_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base has bfloat16; rows trained in float32 lie between its numbers, and must not be
    rounded.
    """
    base = make_base(tmp_path / "base", tied=False, dtype=torch.bfloat16)
    config = staged(tmp_path, FROZEN_FULL, model={"base": str(base)})
    ordinary, started = StepTrainer.train, []

    def watching(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        model = self.language_model
        started.append([model.get_input_embeddings(), model.get_output_embeddings()])
        if len(started) == 2:
            started[1] = [module.weight.detach().clone() for module in started[1]]
        return ordinary(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "train", watching)
    run(config)
    rows = load_file(config.output_dir / "stage-1" / FINAL / SID_ROWS)
    ids = torch.from_numpy(Inputs(config).vocabulary.sid_ids)
    for name, matrix in zip(("input", "output"), started[1], strict=True):
        assert torch.equal(matrix[ids], rows[name])
        assert not torch.equal(rows[name], rows[name].bfloat16().float()), (
            "the test would pass with rounding"
        )


def test_the_second_stage_starts_where_the_first_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same loss, and with the memory of the first model given back."""
    ordinary, models = StepTrainer.train, []

    def watching(self: StepTrainer, *args: Any, **kwargs: Any) -> Any:
        assert all(model() is None for model in models)
        models.append(weakref.ref(self.language_model))
        return ordinary(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "train", watching)
    config = staged(tmp_path, [{"tuning": "frozen", "steps": 6}, {"tuning": "full", "steps": 6}])
    run(config)
    first, second = (
        [entry["eval_sid_next_loss"] for entry in metrics(stage) if "eval_sid_next_loss" in entry]
        for stage in stage_runs(config)
    )
    assert second[0] == pytest.approx(min(first[1:]), rel=1e-5)
    assert len(models) == 2


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_one_stage_is_the_plain_run(tmp_path: Path, tuning: str) -> None:
    training = {"epochs": 1, "batch_size": 16, "workers": 0}
    plain = tiny_config(
        tmp_path, model={"tuning": tuning}, training=training, output_dir=str(tmp_path / "plain")
    )
    one = tiny_config(
        tmp_path, stages=[{"tuning": tuning}], training=training, output_dir=str(tmp_path / "one")
    )
    run(plain)
    run(one)
    assert metrics(one) == metrics(plain)
    assert same_weights(one.output_dir / FINAL, plain.output_dir / FINAL)
    names = [sorted(path.name for path in config.output_dir.iterdir()) for config in (plain, one)]
    assert names[0] == names[1]


def test_stages_see_the_data_in_the_order_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two full stages whose second one begins in the middle of an epoch."""
    seen: list[list[int]] = []
    ordinary = StepTrainer.training_step

    def watching(self: StepTrainer, model: Any, inputs: Any, *args: Any) -> torch.Tensor:
        seen.append(self.steps.plan.step(self.state.global_step).tolist())
        return ordinary(self, model, inputs, *args)

    monkeypatch.setattr(StepTrainer, "training_step", watching)
    run(staged(tmp_path, [{"tuning": "full", "steps": 3}, {"tuning": "full", "steps": 7}]))
    stages = seen.copy()
    seen.clear()
    whole = {"max_steps": 10, "batch_size": 16, "workers": 0}
    run(tiny_config(tmp_path, output_dir=str(tmp_path / "whole"), tasks=MIXTURE, training=whole))
    assert stages == seen
    assert len({tuple(step) for step in seen}) == 10


@pytest.mark.parametrize(
    ("stage", "step", "dtype"),
    [(0, 1, torch.float32), (0, 5, torch.bfloat16), (1, 1, torch.bfloat16), (1, 4, torch.float32)],
    ids=["first-start", "first", "second-start", "second"],
)
def test_resume_is_exact_in_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int, step: int, dtype: torch.dtype
) -> None:
    """Killed before the first checkpoint of a stage, and after it."""
    base = make_base(tmp_path / "base", "gpt2", dtype=dtype)
    change(base / "config.json", resid_pdrop=0.2, embd_pdrop=0.1)
    whole, broken = (
        staged(tmp_path, FROZEN_FULL, output_dir=str(tmp_path / name))
        for name in ("whole", "broken")
    )
    run(whole)
    dies(broken, step, stage_runs(broken)[stage].output_dir)
    steps: list[Path] = []
    ordinary = StepTrainer.training_step

    def counting(self: StepTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        steps.append(self.run)
        return ordinary(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "training_step", counting)
    run(broken)
    assert len(steps) == {(0, 1): 11, (0, 5): 8, (1, 1): 5, (1, 4): 2}[stage, step], (
        "nothing is trained twice"
    )
    for mine, other in zip(stage_runs(broken), stage_runs(whole), strict=True):
        assert metrics(mine) == metrics(other)
        assert same_weights(mine.output_dir / FINAL, other.output_dir / FINAL)
    with pytest.raises(UserError, match="already contains this run, finished"):
        train(broken)


def test_a_stage_that_died_while_writing_its_result_writes_it_again(tmp_path: Path) -> None:
    config = staged(tmp_path, FROZEN_FULL)
    dies(config, 1)
    result = config.output_dir / "stage-1" / FINAL
    # Read through, since the files they would be read from are about to change.
    weights = {name: value.clone() for name, value in load_weights(result).items()}
    (result / "model.safetensors").write_bytes((result / "model.safetensors").read_bytes()[:-3])
    with pytest.raises(UserError, match=r"stage-1/final_checkpoint is incomplete") as refusal:
        train(config)
    assert "Delete it" in refusal.value.hint
    shutil.rmtree(result)
    run(config)
    again = load_weights(result)
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_a_finished_run_without_its_checkpoints_is_not_trained_again(tmp_path: Path) -> None:
    config = staged(tmp_path, FROZEN_FULL)
    run(config)
    for checkpoint in config.output_dir.rglob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(UserError, match="already contains this run, finished"):
        train(config)


def test_a_run_that_died_before_it_wrote_its_configuration_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two files was to come next."""
    config, ordinary, written = staged(tmp_path, FROZEN_FULL), output.write_config, []

    def dying(one: Config) -> None:
        ordinary(one)
        written.append(one.output_dir)
        raise Crash

    monkeypatch.setattr(output, "write_config", dying)
    with pytest.raises(Crash):
        train(config)
    monkeypatch.undo()
    assert written == [config.output_dir]
    run(config)


def test_damage_in_a_stage_is_told_without_harm_to_the_others(tmp_path: Path) -> None:
    config = staged(tmp_path, FROZEN_FULL)
    dies(config, 4)
    (checkpoint,) = config.output_dir.glob("checkpoint-*")
    (checkpoint / "optimizer.pt").unlink()
    with pytest.raises(
        UserError, match=rf"no checkpoint is complete \({checkpoint.name}: "
    ) as refusal:
        train(config)
    assert refusal.value.hint.startswith("Delete it to start a new run there")
    shutil.rmtree(checkpoint)
    assert run(config).steps == 5


def test_other_stages_are_another_run(tmp_path: Path) -> None:
    config = staged(tmp_path, FROZEN_FULL)
    dies(config, 1)
    for stages in (
        [{**FROZEN_FULL[0], "steps": 4}, FROZEN_FULL[1]],
        [FROZEN_FULL[0], {"tuning": "full", "steps": 2}, {"tuning": "frozen", "steps": 2}],
        [FROZEN_FULL[0], {"tuning": "frozen", "steps": 5}],
    ):
        with pytest.raises(UserError, match=r"stages: .* in the checkpoint"):
            train(staged(tmp_path, stages))
    with pytest.raises(UserError, match="contains another run"):
        train(tiny_config(tmp_path, tasks=MIXTURE))
    with pytest.raises(UserError, match="contains another run"):
        train(config, resume="never")
    with pytest.raises(UserError, match="contains another run"):
        train(config, resume=str(config.output_dir / "stage-1" / "checkpoint-6"))


def test_stages_do_not_go_on_from_a_plain_run(tmp_path: Path) -> None:
    plain = tiny_config(tmp_path, tasks=MIXTURE)
    dies(plain, 7)
    with pytest.raises(UserError, match=r"model.tuning: full in the checkpoint, None now"):
        train(staged(tmp_path, FROZEN_FULL))


def test_a_checkpoint_of_the_stage_at_work_can_be_named(tmp_path: Path) -> None:
    config = staged(tmp_path, FROZEN_FULL)
    first = config.output_dir / "stage-1"
    dies(config, 4, first)
    run(config, resume=str(first / "checkpoint-3"))
    assert (config.output_dir / FINAL).is_dir()


def test_the_folder_is_that_of_a_plain_run(tmp_path: Path) -> None:
    config = staged(tmp_path, FROZEN_FULL)
    run(config)
    out = config.output_dir
    again = load_config(out / "config.yaml")
    assert again.stages == config.stages
    assert load_config(out / "stage-1" / "config.yaml").model.tuning == "frozen"
    assert {path.name for path in out.iterdir()} >= {
        "stage-1",
        FINAL,
        "metrics.jsonl",
        "model.safetensors",
    }
    for folder in (out, out / "stage-1" / FINAL):
        report = evaluate(EvaluationRequest(folder))
        assert report is not None
        assert report.rankers["model"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) <= model.config.vocab_size


def test_a_dry_run_names_every_plan(tmp_path: Path, capsys: Any) -> None:
    config = staged(tmp_path, FROZEN_FULL)
    assert train(config, dry_run=True) is None
    printed = " ".join(capsys.readouterr().out.split())
    assert not config.output_dir.exists()
    assert printed.index("Stage 1 of 2") < printed.index(" 6 steps") < printed.index("Stage 2 of 2")
    assert (
        printed.index("Stage 2 of 2")
        < printed.index("full tuning")
        < printed.index("5 steps = 1 epoch of")
    )


@pytest.mark.long
def test_two_processes_train_stages_like_one(tmp_path: Path) -> None:
    make_base(tmp_path / "base", tied=False)
    trees = []
    for processes in (1, 2):
        tree = tiny_tree(
            tmp_path,
            output_dir=str(tmp_path / f"run{processes}"),  # type: ignore[arg-type]
            stages=FROZEN_FULL,  # type: ignore[arg-type]
            tasks=MIXTURE,
            training={"batch_size": 15},
            eval={"every": 3},
        )
        del tree["training"]["epochs"]
        assert [rank.ends() for rank in start_ranks(processes, tree, tmp_path)] == [0] * processes
        trees.append(tree)
    one, two = (steady_metrics(tree) for tree in trees)
    assert len(one) == len(two) > 5
    for left, right in zip(one, two, strict=True):
        assert right == pytest.approx(left, rel=2e-3, abs=1e-6)
    left, right = (load_weights(Path(tree["output_dir"]) / "stage-1" / FINAL) for tree in trees)
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=2e-2, atol=2e-3)
