"""A model that is trained on whole sequences, asked through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.asking import call, plainly_ranked, results
from tests.running import metrics
from tests.tiny_data import read_rows, tiny_config

from sidtune.tasks.config import Config
from sidtune.training.train import train

TRAINING = {"epochs": 6, "batch_size": 4, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run of two tasks, asked the one that is not the default."""
    config = tiny_config(
        tmp_path_factory.mktemp("sequences"),
        tasks={"sid_sequence": None, "title_next": None},
        training=TRAINING,
        eval={
            "every": 5,
            "patience": None,
            "ranking": {"every": 1, "sample": 12, "beams": 10},
            "metric": "ndcg@10",
        },
    )
    assert train(config)
    return config


def test_it_is_asked_what_it_was_taught(trained: Config) -> None:
    done = call("evaluate", trained.output_dir)
    assert done.exit_code == 0, done.output
    _, predictions = results(trained.output_dir / "evaluation")
    rows = read_rows(Path(str(trained.data.test))).to_pylist()
    assert len(predictions) == len(rows) == 12
    for row, predicted in zip(rows, predictions, strict=True):
        right = plainly_ranked(trained, row["history"])
        assert predicted["items"] == [item for item, _ in right]
        assert predicted["scores"] == pytest.approx([score for _, score in right], abs=1e-4)


def test_it_recommends_by_the_same_question(trained: Config) -> None:
    done = call("recommend", trained.output_dir, "--history", "0,1", "-k", "3", "--json")
    assert done.exit_code == 0, done.output
    (answer,) = [json.loads(line) for line in done.stdout.splitlines()]
    right = plainly_ranked(trained, ["0", "1"])[:3]
    assert [entry["item_id"] for entry in answer["items"]] == [item for item, _ in right]


def test_validation_and_the_best_model_go_by_it(trained: Config) -> None:
    entries = [entry for entry in metrics(trained) if "eval_sid_sequence_loss" in entry]
    assert entries[-1]["eval_sid_sequence_loss"] < entries[0]["eval_sid_sequence_loss"] / 2
    assert all("eval_ndcg@10" in entry and "eval_sid_next_loss" not in entry for entry in entries)
    assert "eval_title_next_loss" in entries[0]
