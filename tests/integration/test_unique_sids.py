"""`data.unique_sids`: every item can be named, through training, evaluation and checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.asking import call, plainly_ranked, results
from tests.tiny_data import read_rows, tiny_config, tiny_tree

from sidtune.base.errors import UserError
from sidtune.training.train import train


def test_the_model_tells_items_of_one_sid_apart(tmp_path: Path) -> None:
    training = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01}
    config = tiny_config(
        tmp_path, data={"unique_sids": True}, tasks={"sid_next": None}, training=training
    )
    assert train(config)
    done = call("evaluate", config.output_dir)
    assert done.exit_code == 0, done.output
    report, predictions = results(config.output_dir / "evaluation")
    assert report["colliding"] == 0
    for row, predicted in zip(
        read_rows(Path(str(config.data.test))).to_pylist(), predictions, strict=True
    ):
        right = plainly_ranked(config, row["history"])
        assert len({score for _, score in right}) == 8, "an item, a score"
        assert predicted["items"] == [item for item, _ in right]
        assert predicted["scores"] == pytest.approx([score for _, score in right], abs=1e-4)
        assert predicted["item_rank"] == predicted["sid_rank"]
    answer = call("recommend", config.output_dir, "--history", "0", "-k", "8", "--json").stdout
    sids = {entry["item_id"]: entry["sid"] for entry in json.loads(answer)["items"]}
    assert (sids["6"], sids["7"]) == ("<a_0><b_2><c_6><item_0>", "<a_0><b_2><c_6><item_1>")
    with pytest.raises(UserError, match="task sid_next"):
        train(tiny_config(tmp_path, tasks={"sid_next": None}, training=training))


def test_check_takes_the_rows_as_they_name_sids(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(tiny_tree(tmp_path, data={"unique_sids": True})))
    done = call("check", file)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "8 items, 8 distinct SIDs of 3/4 tokens, 15 SID tokens" in text
    assert "share a SID" not in text
    assert "Set data.unique_sids: true to give each item" in " ".join(
        call("check", file, "data.unique_sids=false").output.split()
    )
