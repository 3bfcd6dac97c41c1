"""What is tried where a run does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny_data import tiny_config, tiny_tree
from tests.tiny_models import make_base
from typer.testing import CliRunner

from sidtune.base.errors import UserError
from sidtune.commands.main import app
from sidtune.inputs import Inputs
from sidtune.model.load import load_outline
from sidtune.training import stage_model
from sidtune.training.arguments import training_arguments
from sidtune.training.make_steps import make_steps
from sidtune.training.memory.fit import Gpus, candidates, largest_pass, options
from sidtune.training.method import Shared


def prepared(folder: Path, **sections: Any) -> tuple[Any, Shared, Any]:
    config = tiny_config(folder, **sections)
    inputs = Inputs(config)
    tasks = inputs.mixture.train()
    model = load_outline(config.model, inputs.vocabulary, config.seed)
    steps = make_steps(config, tasks, model, inputs.vocabulary, training_arguments(config))
    return config, Shared(inputs, tasks, [], {}, None), steps


def test_candidates_change_one_thing_and_then_all(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_tokens": 4096, "precision": "fp32"})
    bf16, smaller, again, together, *states = candidates(config, 90, 3900, staged=True, count=1)
    assert bf16 == {"training.precision": "bf16"}
    assert smaller == {"training.max_tokens": 1024}
    assert again == {"training.gradient_checkpointing": True}
    assert together == bf16 | smaller | again
    eight, moved = {"training.optimizer_state": "8bit"}, {"training.offload_optimizer": True}
    assert states == [eight, eight | together, moved, moved | together]
    packed = {"model.tuning": "lora", "model.quantize": "nf4"}
    assert list(candidates(config, 90, 3900, staged=False, count=8))[8:] == [
        {"training.distributed": "fsdp2"},
        {"training.distributed": "fsdp2"} | together,
        {"training.distributed": "fsdp2"} | together | eight,
        {"training.distributed": "fsdp2"} | together | moved,
        {"model.tuning": "lora"},
        {"model.tuning": "lora"} | together,
        packed,
        packed | together,
    ]
    # A pass cannot be smaller than the longest example, nor be made smaller than it is.
    for longest, tokens in ((3900, 3900), (90, 1000)):
        assert smaller not in candidates(config, longest, tokens, staged=True, count=1)


def test_what_is_tried_where_a_run_does_not_fit_takes_less_memory(
    tmp_path: Path,
) -> None:
    padded = {"layout": "padded", "micro_batch_size": 1, "precision": "bf16"}
    # An adapter that is saved by itself cannot stand beside a quantised base.
    model = {"tuning": "lora", "lora": {"save_adapter": True}}
    prepare = prepared(tmp_path, model=model, training=padded)
    configured, again, sharded, both = options(*prepare, Gpus(2, 1e-5))
    assert sharded.changes == {"training.distributed": "fsdp2"}
    assert 2 * sharded.memory.gradients == configured.memory.gradients
    assert both.memory.total < sharded.memory.total
    assert configured.memory.exchange == configured.memory.gradients > 0
    assert again.changes == {"training.gradient_checkpointing": True}
    assert again.memory.total < configured.memory.total
    assert not again.fits(Gpus(2, 1e-5))


def test_a_smaller_state_of_the_optimizer_is_tried(tmp_path: Path) -> None:
    padded = {"layout": "padded", "micro_batch_size": 1, "precision": "bf16"}
    base = str(make_base(tmp_path / "wide", width=64))
    full, lora = {"base": base, "tuning": "full"}, {"base": base, "tuning": "lora"}
    tried = options(*prepared(tmp_path, model=full, training=padded), Gpus(1, 1e-5))
    found = {" ".join(option.changes): option.memory for option in tried}
    configured, moved = found[""], found["training.offload_optimizer"]
    assert configured.optimizer == 2 * configured.gradients == moved.offloaded
    assert (moved.optimizer, configured.offloaded) == (0, 0)
    assert moved.total == configured.total - configured.optimizer
    assert found["training.optimizer_state"].total < configured.total
    # It would do nothing more.
    again = candidates(
        tiny_config(tmp_path, model=full, training={"offload_optimizer": True}), 9, 9, True, 1
    )
    assert not any("training.optimizer_state" in change for change in again)
    config = tiny_config(tmp_path, model=lora)
    assert not any("training.offload_optimizer" in c for c in candidates(config, 9, 9, True, 1))


def test_the_largest_pass_is_that_of_a_ranks_share(tmp_path: Path) -> None:
    _, _, steps = prepared(tmp_path, training={"batch_size": 16})
    alone, shared = (largest_pass(steps, 4096, processes) for processes in (1, 8))
    assert shared.input_ids.size < alone.input_ids.size


def test_more_gpus_than_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size is 4, but --gpus is 8"):
        options(*prepared(tmp_path, training={"batch_size": 4}), Gpus(8, 80))


def call(folder: Path, *flags: str) -> Any:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(tiny_tree(folder)), encoding="utf-8")
    return CliRunner().invoke(app, ["train", str(file), *flags])


def test_the_command_plans_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(stage_model, "load_model", refused)
    result = call(tmp_path, "--dry-run", "--gpus", "2", "--gpu-memory", "80")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "on 2 × 80 GiB with DDP in bf16" in said
    assert "fits as configured" in said
    for part in ("weights", "gradients", "optimizer", "exchange", "activations", "logits"):
        assert part in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpus", "8", "--gpu-memory", "80"], "no effect without --dry-run"),
        (["--dry-run", "--gpus", "8"], "--gpu-memory is missing"),
        (["--dry-run", "--gpu-memory", "80"], "--gpus is missing"),
    ],
)
def test_gpus_to_plan_for_are_given_whole_and_to_a_dry_run(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    result = call(tmp_path, *flags)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
