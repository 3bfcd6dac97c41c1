"""The configuration of a run of reinforcement, which evaluation and the ranker read again."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sidtune.reinforcement.run import reinforced
from sidtune.tasks.config_file import dump_config, parse_config, with_absolute_paths


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
    tree = {
        "output_dir": "out",
        "model": {"base": "b"},
        "data": {"items": "i", "index": "x", "train": "t", "valid": "v"},
        "rl": rl,
    }
    written = dump_config(with_absolute_paths(reinforced(parse_config(tree, "test"))))
    read = parse_config(yaml.safe_load(written), "test")
    assert dump_config(read) == written
    assert read.evaluation_task == "sid_next"
