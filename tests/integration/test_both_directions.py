"""A model that learned histories in both directions, asked through the command line and in
Python.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.asking import call, message, plainly_ranked, results
from tests.tiny_data import read_rows, tiny_config
from transformers import AutoModelForCausalLM, AutoTokenizer

import sidtune
from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.decoding import reverse
from sidtune.decoding.recommender import Recommender
from sidtune.pipeline.rank import rank_run
from sidtune.ranker.file import read_ranker
from sidtune.runs.bundle import read_bundle
from sidtune.tasks.config import Config
from sidtune.training.train import train

OPENING = "A user's interactions, newest first:\n"
BEAMS, ITEMS = 7, 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run of both directions."""
    config = tiny_config(
        tmp_path_factory.mktemp("both"),
        tasks={"sid_sequence": None, "sid_sequence_reversed": None},
        training={"epochs": 6, "batch_size": 4, "learning_rate": 0.01},
    )
    assert train(config)
    return config


class Plain:
    """Log-probabilities of items behind others, newest first, one forward pass each."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
        bundle = read_bundle(folder)
        self.sids = dict(zip(bundle.catalogue.ids, bundle.catalogue.sids, strict=True))

    def of(self, before: list[str], items: list[str]) -> float:
        """Log P(items | before)."""
        ids = self.tokenizer(OPENING, add_special_tokens=False).input_ids
        spoken = [
            self.tokenizer.convert_tokens_to_ids(list(self.sids[item])) for item in before + items
        ]
        ids = [*ids, *(token for item in spoken for token in item)]
        known = len(ids) - sum(map(len, spoken[len(before) :]))
        with torch.no_grad():
            logs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logs[at - 1, ids[at]]) for at in range(known, len(ids)))


def test_lists_are_ordered_by_the_sum_of_both(trained: Config) -> None:
    done = call("evaluate", trained.output_dir, "--both-directions", "--no-rank")
    assert done.exit_code == 0, done.output
    report, predictions = results(trained.output_dir / "evaluation")
    assert report["settings"]["both_directions"] is True
    plain, rows = Plain(trained.output_dir), read_rows(Path(str(trained.data.test))).to_pylist()
    moved = 0
    for row, predicted in zip(rows, predictions, strict=True):
        history = row["history"]
        forward = plainly_ranked(trained, history)
        latest = history[::-1][:2]
        expected = {item: score + 0.5 * plain.of([item], latest) for item, score in forward}
        # Items that share a SID share its place, and keep their order there.
        order = sorted(expected, key=lambda item: -round(expected[item], 4))
        assert predicted["items"] == order
        assert predicted["scores"] == pytest.approx([expected[item] for item in order], abs=1e-4)
        moved += order != [item for item, _ in forward]
    assert moved > 2


def test_python_says_the_same(trained: Config) -> None:
    recommender = Recommender.load(trained.output_dir, rank=False)
    (listed,) = recommender.recommend([["0", "1"]], k=3, both_directions=True)
    done = call(
        "recommend",
        trained.output_dir,
        *("--history", "0,1", "-k", "3", "--json", "--no-rank", "--both-directions"),
    )
    (answer,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["item_id"] for entry in answer["items"]] == [one.item_id for one in listed]
    assert [entry["score"] for entry in answer["items"]] == pytest.approx(
        [one.score for one in listed], abs=1e-5
    )
    (forward,) = recommender.recommend([["0", "1"]], k=3)
    assert forward[0].score > listed[0].score


def test_the_ranker_knows_how_often_an_item_is_the_newest(trained: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.output_dir, run, ignore=shutil.ignore_patterns("evaluation"))
    rank_run(run)
    ranker, plain = read_ranker(run, None), Plain(run)
    assert ranker
    found = ranker.sources["model"].tensors()["newest"]
    expected = [plain.of([], [str(item)]) for item in range(ITEMS)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert np.ptp(found) > 0.1

    told = message("recommend", run, "--history", "0,1", "--both-directions")
    assert "has no effect on lists that the ranker orders" in told
    done = call("evaluate", run, "--both-directions")
    assert done.exit_code == 0, done.output


def test_models_without_prefix_trees_say_the_same(
    trained: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = Recommender.load(trained.output_dir, rank=False)
    history = trees.positions([["0", "1", "2"], ["5"]])
    items = Ragged.from_lists([[3, 4, 5], [0, 7]])
    assert trees.reverse
    expected = trees.reverse.leading_to(items, history)
    monkeypatch.setattr(reverse, "runs_trees", lambda *_: False)
    plain = Recommender.load(trained.output_dir, rank=False)
    assert plain.reverse
    assert plain.reverse.leading_to(items, history) == pytest.approx(expected, abs=1e-4)
    assert plain.newest() == pytest.approx(trees.newest(), abs=1e-4)


def test_what_a_base_learned_of_its_items_is_kept(trained: Config, tmp_path: Path) -> None:
    backwards = read_bundle(trained.output_dir).reversed_template
    assert backwards
    sections: dict[str, Any] = {
        "model": {"base": str(trained.output_dir), "from_scratch": False},
        "tasks": {"sid_sequence": None},
        "training": {"max_steps": 1},
    }
    further = tiny_config(tmp_path, **sections)
    assert train(further)
    assert read_bundle(further.output_dir).reversed_template == backwards
    reinforced = trained.output_dir.with_name("reinforced")
    done = call(
        "rl", trained.output_dir / "config.yaml", f"rl.output_dir={reinforced}", "rl.steps=1"
    )
    assert done.exit_code == 0, done.output
    assert read_bundle(reinforced).reversed_template == backwards

    index = json.loads(Path(str(trained.data.index)).read_text())
    index["0"], index["1"] = index["1"], index["0"]
    other = tmp_path / "other.index.json"
    other.write_text(json.dumps(index))
    changed = tiny_config(tmp_path / "changed", **sections, data={"index": str(other)})
    assert train(changed)
    assert read_bundle(changed.output_dir).reversed_template is None


def test_a_model_of_one_direction_says_so(run: Path) -> None:
    for command in (("recommend", "--history", "0,1"), ("evaluate",), ("serve", "--port", "0")):
        told = message(command[0], run, *command[1:], "--both-directions")
        assert "learned histories from oldest to newest only" in told
    with pytest.raises(UserError, match="from oldest to newest only"):
        sidtune.evaluate(run, both_directions=True)
    assert not (run / "evaluation").exists()
