"""Sharded runs (FSDP2) of gloo processes on the CPU equal one process that holds everything."""

from __future__ import annotations

import re
import signal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.asking import message
from tests.forking import start_ranks
from tests.integration.test_distributed import metrics
from tests.running import same_result
from tests.tiny_data import tiny_tree
from tests.tiny_models import make_base

from sidtune.base.errors import UserError
from sidtune.files.weight_files import load_weights
from sidtune.reinforcement.run import reinforce
from sidtune.runs.checkpoints import FINAL, newest_complete
from sidtune.tasks.config_file import parse_config
from sidtune.training.train import train

Tree = dict[str, Any]
# What each process holds when the run ends, and who reads the base.
WATCHED = """
import sidtune.training.stage_model as stage_model
from torch.distributed.tensor import DTensor
from sidtune.training.trainer import StepTrainer

load, train = stage_model.load_model, StepTrainer.train

def loading(*args, **kwargs):
    print("reads the base", flush=True)
    return load(*args, **kwargs)

def watching(self, *args, **kwargs):
    result = train(self, *args, **kwargs)
    state = [value for one in self.optimizer.state.values() for value in one.values()]
    held = [*self.language_model.parameters(), *(value for value in state if value.dim())]
    assert all(isinstance(value, DTensor) for value in held)
    assert type(self.model_wrapped).__name__ == "Wrapped", "and not DDP"
    print("holds", sum(v.to_local().numel() for v in held), "of", sum(v.numel() for v in held))
    return result

stage_model.load_model, StepTrainer.train = loading, watching
"""


def tree_of(folder: Path, name: str, distributed: str = "auto", **sections: Any) -> Tree:
    """Nine steps of 15 examples, which two processes share unevenly, in passes of few tokens."""
    training = {
        "max_steps": 9,
        "batch_size": 15,
        "max_tokens": 300,
        "workers": 0,
        "distributed": distributed,
        **sections.pop("training", {}),
    }
    return tiny_tree(
        folder,
        output_dir=str(folder / name),  # type: ignore[arg-type]
        training=training,
        tasks={"sid_next": None, "item_feature": None},
        eval={"every": 3, **sections.pop("eval", {})},
        **sections,
    )


def run(processes: int, tree: Tree, folder: Path, *options: str, **environment: str) -> list[str]:
    """Run to the end; what each process said."""
    ranks = start_ranks(processes, tree, folder, *options, **environment)
    assert [rank.ends() for rank in ranks] == [0] * processes, [rank.said() for rank in ranks]
    return [rank.said() for rank in ranks]


def dies(processes: int, tree: Tree, folder: Path, step: int) -> None:
    ranks = start_ranks(processes, tree, folder, DIES_AT=str(step))
    assert -signal.SIGKILL in [rank.ends() for rank in ranks]


def equal_up_to_rounding(tree: Tree, other: Tree) -> None:
    """Assert that two runs logged the same and left the same weights."""
    left, right = metrics(tree), metrics(other)
    assert len(left) == len(right) > 9
    for mine, theirs in zip(left, right, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    kept, expected = (load_weights(Path(each["output_dir"]) / FINAL) for each in (tree, other))
    assert kept.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(kept[name], value, rtol=2e-2, atol=2e-3)


def test_two_processes_equal_one_and_resume(tmp_path: Path) -> None:
    """With validation that ranks, and processes that have unequal numbers of passes."""
    make_base(tmp_path / "base", tied=False)
    ranking = {"ranking": {"every": 1, "sample": 7, "beams": 10}}
    whole = tree_of(tmp_path, "whole", eval=ranking)
    shards = tree_of(tmp_path, "shards", "fsdp2", eval=ranking)
    run(1, whole, tmp_path)
    dies(2, shards, tmp_path, 5)
    newest, skipped = newest_complete(tmp_path / "shards")
    assert newest == tmp_path / "shards" / "checkpoint-3"
    assert not skipped
    said = run(2, shards, tmp_path, OPENING=WATCHED)
    equal_up_to_rounding(shards, whole)
    assert ["reads the base" in each for each in said] == [True, False]
    held = [list(map(int, re.findall(r"holds (\d+) of (\d+)", each)[0])) for each in said]
    assert held[0][0] + held[1][0] == held[0][1]
    assert held[1][0] > 0.4 * held[1][1]


def test_lora_resumes_in_one_process(tmp_path: Path) -> None:
    """Begun by two; with tied rows, layers that are computed twice, and an adapter at the end."""
    make_base(tmp_path / "base", "qwen3")
    sections: dict[str, Any] = {
        "model": {"tuning": "lora", "lora": {"rank": 4, "save_adapter": True}},
        "training": {"gradient_checkpointing": True, "layout": "bucketed"},
    }
    whole = tree_of(tmp_path, "whole", **sections)
    shards = tree_of(tmp_path, "shards", "fsdp2", **sections)
    run(1, whole, tmp_path)
    dies(2, shards, tmp_path, 7)
    linked = tmp_path / "shards" / "checkpoint-6" / "frozen_shards"
    before = {file.name: file.stat().st_ino for file in linked.iterdir()}
    run(1, shards, tmp_path, "--allow-other-processes")
    equal_up_to_rounding(shards, whole)
    linked = tmp_path / "shards" / "checkpoint-9" / "frozen_shards"
    assert before == {file.name: file.stat().st_ino for file in linked.iterdir()}
    assert (tmp_path / "shards" / "adapter").is_dir()
    checkpoint = linked.parent
    refused = "shards of a run with training.distributed: fsdp2"
    assert refused in message("evaluate", checkpoint)
    assert refused in message("recommend", checkpoint, "--history", "3,1")


def test_what_has_no_effect_or_is_not_supported_is_refused(tmp_path: Path) -> None:
    alone = parse_config(tree_of(tmp_path, "run", "ddp"), "test")
    with pytest.raises(UserError, match="is ddp, but there is one process"):
        train(alone)
    with pytest.raises(UserError, match="fsdp2 is not supported by reinforcement"):
        reinforce(parse_config(tree_of(tmp_path, "run", "fsdp2"), "test"))


PRODUCT = [
    pytest.param(*case, marks=pytest.mark.long)
    for case in product(
        ("full", "frozen", "lora"), ("tree", "bucketed", "padded"), (True, False), (2, 4)
    )
]


@pytest.mark.parametrize(("tuning", "layout", "tied", "processes"), PRODUCT)
def test_killed_sharded_runs_end_like_those_left_alone(
    tmp_path: Path, tuning: str, layout: str, tied: bool, processes: int
) -> None:
    """To the bit where as many processes go on; up to rounding, one process and other numbers."""
    make_base(tmp_path / "base", "qwen3", tied)
    training = {"layout": layout}
    if layout == "padded":
        training["max_tokens"] = None

    def tree(name: str, distributed: str = "fsdp2") -> Tree:
        made = tree_of(tmp_path, name, distributed, training=training, model={"tuning": tuning})
        made["training"] = {k: v for k, v in made["training"].items() if v is not None}
        return made

    one, whole, killed, moved = tree("one", "auto"), tree("whole"), tree("killed"), tree("moved")
    run(1, one, tmp_path)
    run(processes, whole, tmp_path)
    equal_up_to_rounding(whole, one)
    for death in (5, 7):
        dies(processes, killed, tmp_path, death)
    run(processes, killed, tmp_path)
    same_result(killed, whole)
    dies(processes, moved, tmp_path, 5)
    run(6 - processes, moved, tmp_path, "--allow-other-processes")
    equal_up_to_rounding(moved, one)


@pytest.mark.long
def test_sharded_stages_follow_each_other(tmp_path: Path) -> None:
    """Each starts at the loss of the one before, in bfloat16 over a bfloat16 base."""
    make_base(tmp_path / "base", dtype=torch.bfloat16)
    stages = [
        {"tuning": "frozen", "steps": 2, "learning_rate": 0.05},
        {"tuning": "lora", "steps": 4},
        {"tuning": "full", "steps": 2},
    ]
    trees = []
    for name, distributed in (("one", "auto"), ("two", "fsdp2")):
        tree = tree_of(
            tmp_path, name, distributed, training={"precision": "bf16"}, eval={"every": 2}
        )
        tree |= {"stages": stages}
        tree["model"]["lora"] = {"rank": 4}
        del tree["training"]["epochs"], tree["training"]["max_steps"]
        run(len(trees) + 1, tree, tmp_path)
        trees.append(tree)
    for stage in ("stage-1", "stage-2", ""):
        left, right = (
            metrics({"output_dir": str(Path(tree["output_dir"]) / stage)}) for tree in trees
        )
        assert len(left) == len(right) > 3
        for mine, theirs in zip(left, right, strict=True):
            assert mine == pytest.approx(theirs, rel=2e-2)


BROKEN = """
import torch
import sidtune.training.stage_model as stage_model

load = stage_model.load_model

def loading(*args, **kwargs):
    model = load(*args, **kwargs)
    # A token of the first title: examples without it are sound.
    with torch.no_grad():
        model.get_input_embeddings().weight[TOKEN] = float("nan")
    return model

stage_model.load_model = loading
"""


@pytest.mark.long
def test_weights_that_are_not_finite_are_explained(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "broken", "fsdp2")
    ranks = start_ranks(2, tree, tmp_path, OPENING=BROKEN.replace("TOKEN", "300"))
    assert [rank.ends() for rank in ranks] == [2, 2]
    said = ranks[0].said()
    assert "step 1: the loss is not finite" in said
    assert "The weights themselves are not finite" in said
    assert (tmp_path / "broken" / "non_finite.jsonl").read_text()
