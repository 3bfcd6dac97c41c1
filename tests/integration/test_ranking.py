"""Ranking metrics while training: logged like the loss, and able to choose the best model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.asking import call, results
from tests.tiny_data import tiny_config
from transformers import AutoModelForCausalLM

from sidtune.tasks.config import Config
from sidtune.training.train import train


def ranked_config(folder: Path, **evaluation: Any) -> Config:
    given = {
        "every": 4,
        "patience": None,
        "ranking": {"every": 1, "sample": 7, "beams": 10},
        **evaluation,
    }
    return tiny_config(folder, eval=given)


def logged(config: Config) -> list[dict[str, Any]]:
    lines = (config.output_dir / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "eval_sid_next_loss" in entry]


def test_ranking_metrics_are_logged_like_the_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ranked_config(tmp_path, ranking={"every": 2, "sample": 12, "beams": 10})
    assert train(config)
    entries = logged(config)
    assert len(entries) > 4
    steps = [entry["step"] for entry in entries]
    last = steps[-1]
    assert [entry["step"] for entry in entries if "eval_ndcg@10" in entry] == [
        step for step in steps if step % 8 == 0 or step == last
    ]
    assert "ndcg@10" in capsys.readouterr().out
    shutil.rmtree(config.output_dir / "final_checkpoint")
    checkpoint = config.output_dir / f"checkpoint-{last}"
    assert call("evaluate", checkpoint, "--split", "valid", "--beams", 10).exit_code == 0
    report, _ = results(checkpoint / "evaluation", "valid")
    for name in ("HR@10", "NDCG@10", "HR@1"):
        figure = report["rankers"]["model"]["item"][name]["value"]
        assert figure == pytest.approx(entries[-1][f"eval_{name.lower()}"])


@pytest.mark.parametrize(
    ("key", "value", "option"),
    [
        ("normalize", "trie", ("--normalize", "trie")),
        ("exclude_history", True, ("--exclude-history",)),
    ],
)
def test_the_lists_are_those_of_evaluate(
    tmp_path: Path, key: str, value: Any, option: tuple[str, ...]
) -> None:
    config = ranked_config(tmp_path, ranking={"every": 1, "sample": 12, "beams": 10, key: value})
    assert train(config)
    last = logged(config)[-1]
    checkpoint = config.output_dir / f"checkpoint-{last['step']}"
    found = []
    for name, given in (("with", option), ("without", ())):
        options = ("--split", "valid", "--beams", 10, "--output", tmp_path / name, *given)
        assert call("evaluate", checkpoint, *options).exit_code == 0
        report, _ = results(tmp_path / name, "valid")
        figures = report["rankers"]["model"]["item"]
        found.append({metric: figures[metric]["value"] for metric in ("MRR", "NDCG@3")})
    chosen, other = found
    assert chosen != other
    assert chosen == pytest.approx({"MRR": last["eval_mrr"], "NDCG@3": last["eval_ndcg@3"]})


@pytest.mark.parametrize("metric", ["ndcg@10", "hr@10"])
def test_the_best_model_can_be_chosen_by_ranking(tmp_path: Path, metric: str) -> None:
    config = ranked_config(tmp_path, metric=metric)
    result = train(config)
    assert result
    entries, name = logged(config)[1:], f"eval_{metric}"
    best = max(entry[name] for entry in entries)
    # With every item in the list HR@10 is always 1, and the first of equals is the best.
    assert [entry[f"{name}_error"] > 0 for entry in entries] == [metric != "hr@10"] * 5
    level = [entry["step"] for entry in entries if entry[name] > best - entry[f"{name}_error"] / 2]
    step = max(level, default=entries[0]["step"])
    assert result.best_step == step
    state = json.loads(
        (config.output_dir / f"checkpoint-{step}" / "trainer_state.json").read_text()
    )
    assert state["best_metric"] == pytest.approx(best)
    assert result.best_loss == next(
        entry["eval_sid_next_loss"] for entry in entries if entry["step"] == step
    )


def test_early_stopping_watches_the_ranking_metric(tmp_path: Path) -> None:
    """With every item in the list HR@10 is 1 from the first evaluation on, and cannot
    get better.
    """
    config = ranked_config(tmp_path, metric="hr@10", patience=2)
    result = train(config)
    assert result
    assert [entry["eval_hr@10"] for entry in logged(config)] == [1.0] * 4
    assert result.steps == 12


def test_ranking_changes_nothing_but_the_log(tmp_path: Path) -> None:
    with_it, without = (
        ranked_config(tmp_path, ranking={"every": 1}),
        ranked_config(tmp_path, ranking={}),
    )
    weights = []
    for name, config in (("with", with_it), ("without", without)):
        own = config.model_copy(update={"output_dir": tmp_path / name})
        assert train(own)
        weights.append(AutoModelForCausalLM.from_pretrained(own.output_dir).state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
