"""What is said about a key that takes values of several kinds, in words of the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from sidtune.base.errors import UserError
from sidtune.tasks.config_file import CONFIG_HINT, parse_config

TREE: dict[str, Any] = {
    "output_dir": "out",
    "model": {"base": "b"},
    "data": {"index": "x", "interactions": "h"},
}


def faults(section: str, key: str, value: object) -> list[str]:
    files = {"events": {"files": "a"}}.get(section, TREE.get(section, {}))
    with pytest.raises(UserError) as error:
        parse_config({**TREE, section: {**files, key: value}}, "run.yaml")
    return str(error.value).removeprefix("run.yaml: ").removesuffix(f"\n{CONFIG_HINT}").split("\n")


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        # A section or one of two words: the section is meant.
        (
            "events",
            "split",
            {"time": [8, 1, 1]},
            [
                "events.split.valid: is missing",
                "events.split.test: is missing",
                "events.split.time: unknown key",
            ],
        ),
        (
            "events",
            "split",
            {"valid": "2018-02-01", "test": "2018-01-01"},
            ["events.split: test must be later than valid"],
        ),
        (
            "events",
            "split",
            "random",
            [
                "events.split: expected leave_one_out or global_time, or {valid, test},"
                " found 'random'"
            ],
        ),
        (
            "events",
            "k_core",
            {"users": 5, "item": 3},
            [
                "events.k_core.user: is missing",
                "events.k_core.users: unknown key; did you mean user?",
            ],
        ),
        (
            "events",
            "k_core",
            {"user": 0, "item": 3},
            ["events.k_core.user: expected at least 1, found 0"],
        ),
        (
            "events",
            "types",
            3,
            [
                "events.types: expected list of text or mapping from name to number at least 0, or"
                " null, found 3"
            ],
        ),
        (
            "eval",
            "ranking",
            {"exclude_history": {"a": 1}},
            ["eval.ranking.exclude_history: expected auto, or true or false"],
        ),
        (
            "model",
            "lora",
            {"rnk": 8},
            ["model.lora.rnk: unknown key; did you mean rank?"],
        ),
        ("sids", "levels", "256", ["sids.levels: expected a list, found '256'"]),
    ],
)
def test_faults(section: str, key: str, value: object, expected: list[str]) -> None:
    assert faults(section, key, value) == expected
