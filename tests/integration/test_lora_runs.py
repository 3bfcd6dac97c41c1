"""Runs with LoRA: against PEFT in Transformers' own loop, exact resume, stages, and the result."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.asking import call, message
from tests.forking import start_ranks
from tests.integration.test_distributed import metrics as steady_metrics
from tests.running import dies, losses, metrics, run, same_result
from tests.tiny_data import tiny_config, tiny_tree
from tests.tiny_models import make_base
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from sidtune.base import storage
from sidtune.base.errors import UserError
from sidtune.encoding.corpus import Corpus
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.files.weight_files import load_weights
from sidtune.inputs import Inputs
from sidtune.model.checkpoint_files import ADAPTERS, HIDDEN
from sidtune.model.load import load_model
from sidtune.runs.checkpoints import FINAL, checkpoints, partial_of
from sidtune.runs.schedule import stage_runs
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.training.make_steps import make_plan
from sidtune.training.train import train

LORA: dict[str, Any] = {"tuning": "lora", "lora": {"rank": 4}}
STEPS = 9
TASKS = {"sid_next": None, "title_to_sid": None}


class StepByStep(Trainer):
    """Transformers' loop over given batches, which notes the losses."""

    losses: list[float]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(float(loss.detach()))
        return loss


def of_peft(config: Config, folder: Path) -> list[float]:
    """Losses of PEFT's model in Transformers' loop, on the batches of our plan."""
    peft = pytest.importorskip("peft")
    inputs = Inputs(config)
    whole = config.model.model_copy(update={"tuning": "full"})
    plain = load_model(whole, inputs.vocabulary, config.seed)
    settings = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        trainable_token_indices=inputs.vocabulary.sid_ids.tolist(),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(config.seed)
    model = peft.get_peft_model(plain, settings)
    corpus = Corpus(inputs.mixture.train())
    plan = make_plan(config, corpus)
    pad = int(inputs.vocabulary.tokenizer.pad_token_id)

    def batch(numbers: list[int]) -> dict[str, torch.Tensor]:
        examples = [corpus[int(i)] for i in plan.step(numbers[0])]
        shape = (len(examples), max(len(ids) for ids, _, _ in examples))
        ids, labels, mask = np.full(shape, pad), np.full(shape, -100), np.zeros(shape, np.int64)
        for row, (tokens, spans, _) in enumerate(examples):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            for start, end in spans.tolist():
                labels[row, start:end] = tokens[start:end]
        given = {"input_ids": ids, "labels": labels, "attention_mask": mask}
        return {name: torch.from_numpy(value) for name, value in given.items()}

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=1,
        learning_rate=config.training.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.training.min_lr_ratio},
        warmup_steps=2,
        optim="adamw_torch_fused",
        train_sampling_strategy="sequential",
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    steps: Any = list(range(STEPS))
    trainer = StepByStep(model=model, args=arguments, train_dataset=steps, data_collator=batch)
    trainer.losses = []
    trainer.train()
    return trainer.losses


@pytest.mark.parametrize("layout", ["tree", pytest.param("padded", marks=pytest.mark.long)])
def test_losses_are_those_of_peft_in_the_loop_of_transformers(tmp_path: Path, layout: str) -> None:
    training = {"max_steps": STEPS, "layout": layout, "workers": 0}
    config = tiny_config(tmp_path, model=LORA, training=training, eval={"every": 9})
    run(config)
    expected = of_peft(config, tmp_path / "theirs")
    assert losses(config) == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0] - 0.3, "it learns"


def test_the_result_is_an_ordinary_model(tmp_path: Path) -> None:
    """In the base's own type; only layers with adapters and SID rows differ from the base."""
    base = make_base(tmp_path / "base", "llama", tied=False, dtype=torch.bfloat16)
    training = {"workers": 0, "max_steps": 3}
    config = tiny_config(tmp_path, model=LORA, tasks=TASKS, training=training)
    run(config)
    before, after = load_weights(base), load_weights(config.output_dir)
    kept = [name for name in before if torch.equal(after[name][: len(before[name])], before[name])]
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert all(("norm" in name) or ("embed" in name) or ("lm_head" in name) for name in kept)
    assert len(kept) == 7
    for folder in (config.output_dir, *checkpoints(config.output_dir)):
        plain = AutoModelForCausalLM.from_pretrained(folder)
        assert not hasattr(plain, "peft_config")
    report = evaluate(EvaluationRequest(config.output_dir))
    assert report is not None
    assert report.rankers["model"]
    shown = call("recommend", config.output_dir, "--history", "3,1", "-k", 2).output
    assert "1" in shown


def test_resume_is_exact(tmp_path: Path) -> None:
    """With dropout in adapters and blocks, and the base written once."""
    make_base(tmp_path / "base", "qwen3", dtype=torch.bfloat16)

    def tree(name: str) -> dict[str, Any]:
        return tiny_tree(
            tmp_path,
            output_dir=str(tmp_path / name),  # type: ignore[arg-type]
            model={
                "tuning": "lora",
                "residual_dropout": 0.1,
                "lora": {"rank": 4, "dropout": 0.2, "dora": True},
            },
            tasks=TASKS,
            training={"max_steps": 6, "workers": 0},
            eval={"every": 2, "save_total_limit": 2},
        )

    whole, killed = tree("whole"), tree("killed")
    run(parse_config(whole, "test"))
    dies(parse_config(killed, "test"), 3)
    run(parse_config(killed, "test"))
    same_result(killed, whole)
    for name in (ADAPTERS, HIDDEN):
        one, other = (tmp_path / run / "checkpoint-6" / name for run in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()
    first, second = (tmp_path / "killed" / f"checkpoint-{step}" / HIDDEN for step in (4, 6))
    assert first.stat().st_ino == second.stat().st_ino


@pytest.mark.long
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    make_base(tmp_path / "base", tied=False)
    trees = []
    for processes in (1, 2):
        tree = tiny_tree(
            tmp_path,
            output_dir=str(tmp_path / f"run{processes}"),  # type: ignore[arg-type]
            model=LORA,
            tasks=TASKS,
            training={"batch_size": 15, "max_steps": 6},
            eval={"every": 3},
        )
        assert [rank.ends() for rank in start_ranks(processes, tree, tmp_path)] == [0] * processes
        trees.append(tree)
    one, two = (steady_metrics(tree) for tree in trees)
    assert len(one) == len(two) > 5
    for left, right in zip(one, two, strict=True):
        assert right == pytest.approx(left, rel=2e-3, abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_run_resumes_exactly(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    make_base(tmp_path / "base", dtype=torch.bfloat16, width=128)

    def tree(name: str) -> dict[str, Any]:
        return tiny_tree(
            tmp_path,
            output_dir=str(tmp_path / name),  # type: ignore[arg-type]
            model={**LORA, "quantize": kind},
            training={"max_steps": 6, "workers": 0},
            eval={"every": 2},
        )

    whole, killed = tree("whole"), tree("killed")
    run(parse_config(whole, "test"))
    dies(parse_config(killed, "test"), 3)
    run(parse_config(killed, "test"))
    same_result(killed, whole)
    assert losses(parse_config(whole, "test"))[-1] < losses(parse_config(whole, "test"))[0]
    report = evaluate(EvaluationRequest(tmp_path / "whole"))
    assert report is not None
    assert report.rankers["model"]


STAGES = [
    {"tuning": "frozen", "steps": 2, "learning_rate": 0.05},
    {"tuning": "lora", "steps": 4},
    {"tuning": "full", "steps": 2},
]


def test_stages_follow_each_other(tmp_path: Path) -> None:
    """Frozen, LoRA, full: each starts at the loss of the one before, also when it was killed."""
    make_base(tmp_path / "base", dtype=torch.bfloat16)

    def tree(name: str) -> dict[str, Any]:
        made = tiny_tree(
            tmp_path,
            output_dir=str(tmp_path / name),  # type: ignore[arg-type]
            stages=STAGES,  # type: ignore[arg-type]
            model={"lora": {"rank": 4}},
            tasks=TASKS,
            training={"workers": 0},
            eval={"every": 2},
        )
        del made["training"]["epochs"]
        return made

    whole, killed = (parse_config(tree(name), "test") for name in ("whole", "killed"))
    run(whole)
    dies(killed, 3, stage_runs(killed)[1].output_dir)
    run(killed)
    for mine, other in zip(stage_runs(killed), stage_runs(whole), strict=True):
        assert metrics(mine) == metrics(other)
        left, right = (load_weights(each.output_dir / FINAL) for each in (mine, other))
        assert all(torch.equal(right[name], value) for name, value in left.items())
    first, second, third = (
        [entry["eval_sid_next_loss"] for entry in metrics(stage) if "eval_sid_next_loss" in entry]
        for stage in stage_runs(whole)
    )
    assert second[0] == pytest.approx(min(first[1:]), rel=1e-5)
    assert third[0] == pytest.approx(min(second[1:]), rel=1e-5)


@pytest.mark.parametrize(
    ("architecture", "tied", "lora"),
    [
        ("qwen3", True, {}),
        ("llama", False, {"dora": True, "rslora": True}),
        pytest.param("gpt2", True, {}, marks=pytest.mark.long),
    ],
)
def test_plain_peft_loads_the_adapter(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    tied: bool,
    lora: dict[str, Any],
) -> None:
    """As its card says; merged, it is the run's own model to the bit. Both folders are on disk
    before their names are.
    """
    from peft import PeftModel

    flushed: set[Path] = set()
    monkeypatch.setattr(storage, "flush", flushed.add)
    make_base(tmp_path / "base", architecture, tied, spare=3)
    model = {"tuning": "lora", "lora": {"rank": 4, "save_adapter": True, **lora}}
    training = {"max_steps": 2, "workers": 0}
    config = tiny_config(tmp_path, model=model, training=training, tasks=TASKS, eval={"every": 2})
    run(config)
    adapter = config.output_dir / "adapter"
    assert not (adapter / "config.json").exists(), "it is no model by itself"
    assert {partial_of(adapter) / file.name for file in adapter.iterdir()} <= flushed
    card = (adapter / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    assert PeftModel.__name__ in code
    names: dict[str, Any] = {}
    exec(code.replace('"."', repr(str(adapter))), names)
    merged = AutoModelForCausalLM.from_pretrained(config.output_dir)
    ids = torch.randint(0, len(names["tokenizer"]), (2, 20))
    torch.testing.assert_close(names["model"](ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        done = call("merge", config.output_dir, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert not [each for each in warned if "is_gradient_checkpointing" in str(each.message)]
    assert {partial_of(tmp_path / "out") / f.name for f in (tmp_path / "out").iterdir()} <= flushed
    same, own = load_weights(tmp_path / "out"), load_weights(config.output_dir)
    assert same.keys() == own.keys()
    assert all(torch.equal(same[name], value) for name, value in own.items())
    assert call("recommend", tmp_path / "out", "--history", "3,1", "-k", 2).exit_code == 0
    for source, target, reason in (
        (adapter, tmp_path / "out", "out exists and is not empty"),
        (tmp_path / "out", tmp_path / "new", "contains no adapter"),
        (tmp_path / "none", tmp_path / "new", "no such folder"),
    ):
        assert reason in message("merge", source, target)
    other = config.model_copy(update={"output_dir": tmp_path / "other"})
    with pytest.raises(UserError, match=r"save_adapter: .*out differs from model.base in more"):
        train(other, resume=str(tmp_path / "out"), dry_run=True)
    make_base(tmp_path / "base", "gpt_neox")
    assert "cannot be loaded into its base" in message("merge", adapter, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_an_adapter_after_a_frozen_stage_has_its_rows(tmp_path: Path) -> None:
    """Merged, it is the run's own model; activations that are computed twice change nothing."""
    make_base(tmp_path / "base", tied=False, dtype=torch.bfloat16)
    stages = [{"tuning": "frozen", "steps": 2}, {"tuning": "lora", "steps": 4}]
    seen = []
    for again in (False, True):
        tree = tiny_tree(
            tmp_path,
            output_dir=str(tmp_path / f"run-{again}"),  # type: ignore[arg-type]
            stages=stages,  # type: ignore[arg-type]
            model={"lora": {"rank": 4, "save_adapter": True}},
            tasks=TASKS,
            training={"workers": 0, "gradient_checkpointing": again},
            eval={"every": 2},
        )
        del tree["training"]["epochs"]
        config = parse_config(tree, "test")
        run(config)
        seen.append(metrics(config))
    assert seen[0] == seen[1]
    assert call("merge", config.output_dir, tmp_path / "out").exit_code == 0
    same, own = load_weights(tmp_path / "out"), load_weights(config.output_dir)
    assert all(torch.equal(same[name], value) for name, value in own.items())
