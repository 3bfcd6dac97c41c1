"""A run of reinforcement: its configuration, which evaluation and the ranker read again, and what
it says at its end.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from sidtune.base.terminal import LAUNCHER
from sidtune.config.evaluation import RankingConfig
from sidtune.reinforcement import run
from sidtune.reinforcement.run import KEYS, reinforce, reinforced
from sidtune.tasks.config_file import dump_config, parse_config, with_absolute_paths
from sidtune.training.guards.out_of_memory import advice

TREE = {
    "output_dir": "out",
    "model": {"base": "b"},
    "data": {"items": "i", "index": "x", "train": "t", "valid": "v"},
}


@pytest.mark.parametrize(
    "rl",
    [
        {},
        {"tasks": {"title_to_sid": None}},
        {"tasks": {"sid_sequence": {"weight": 2}}, "output_dir": "elsewhere"},
        {"updates": 2, "clip": 0.1, "rollout": "sample", "temperature": 0.5},
    ],
)
def test_it_is_read_as_it_was_written(rl: dict[str, Any]) -> None:
    written = dump_config(with_absolute_paths(reinforced(parse_config(TREE | {"rl": rl}, "test"))))
    read = parse_config(yaml.safe_load(written), "test")
    assert dump_config(read) == written
    assert read.evaluation_task == "sid_next"


def test_validation_rows_are_ranked_as_the_finished_run_ranks_them() -> None:
    given = {"sample": 7, "normalize": "trie", "exclude_history": True}
    ranking = reinforced(parse_config(TREE | {"eval": {"ranking": given}}, "test")).eval.ranking
    assert ranking == RankingConfig(every=1, beams=50, **given)


def test_it_is_tuned_as_the_last_stage() -> None:
    stages = [{"tuning": "frozen", "epochs": 1}, {"tuning": "lora", "epochs": 2}]
    assert reinforced(parse_config(TREE | {"stages": stages}, "test")).model.tuning == "lora"
    model = {"base": "b", "tuning": "frozen"}
    assert reinforced(parse_config(TREE | {"model": model}, "test")).model.tuning == "frozen"


@pytest.mark.parametrize(("updates", "rate"), [(1, 0.1), (2, 0.0)])
def test_several_updates_leave_no_dropout(updates: int, rate: float) -> None:
    own = {"residual_dropout": 0.1, "embedding_dropout": 0.1}
    model = {"base": "b", "tuning": "lora", "lora": {"rank": 4, "dropout": 0.1}, **own}
    tree = TREE | {"model": model, "rl": {"updates": updates}}
    made = reinforced(parse_config(tree, "test")).model
    assert {made.residual_dropout, made.embedding_dropout, made.lora.dropout} == {rate}
    assert made.lora.rank == 4


def test_messages_name_the_keys_that_set_the_schedule() -> None:
    given = {"prompts": 3, "steps": 5, "learning_rate": 0.5, "warmup": 7, "max_grad_norm": 9.0}
    for rl in (given, {"epochs": 6}):
        training = reinforced(parse_config(TREE | {"rl": rl}, "test")).training
        for name, value in rl.items():
            set_by_it = [key for key, kept in training if kept == value and type(kept) is not bool]
            assert [KEYS[f"training.{key}"] for key in set_by_it] == [f"rl.{name}"]


def test_out_of_memory_names_what_reinforcement_can_change() -> None:
    said = advice(reinforced(parse_config(TREE, "test")))
    assert "rl.group, now 16" in said
    assert "fsdp2" not in said


@pytest.mark.parametrize(("rank", "times"), [("0", 1), ("1", 0)])
def test_one_process_says_that_nothing_was_gained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: str,
    times: int,
) -> None:
    for name, value in zip(LAUNCHER, (rank, rank, "2"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(run, "refuse_other_folders", lambda _: None)
    monkeypatch.setattr(run, "train", lambda *_: SimpleNamespace(best_step=3))
    monkeypatch.setattr(run, "_ranking", lambda _, step: {"ndcg@10": 0.2})
    reinforce(parse_config(TREE | {"output_dir": str(tmp_path)}, "test"))
    assert capsys.readouterr().err.count("no evaluation had a higher") == times
