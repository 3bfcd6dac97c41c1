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
                "events.split.valid: Field required",
                "events.split.test: Field required",
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
                "events.split: Input should be 'leave_one_out' or 'global_time'; or expected keys"
                " with values, found 'random'"
            ],
        ),
        (
            "events",
            "k_core",
            {"users": 5, "item": 3},
            [
                "events.k_core.user: Field required",
                "events.k_core.users: unknown key; did you mean user?",
            ],
        ),
        (
            "events",
            "k_core",
            {"user": 0, "item": 3},
            ["events.k_core.user: Input should be greater than or equal to 1, found 0"],
        ),
        (
            "events",
            "types",
            3,
            ["events.types: expected a list; or expected keys with values, found 3"],
        ),
        (
            "eval",
            "ranking",
            {"exclude_history": {"a": 1}},
            [
                "eval.ranking.exclude_history: Input should be 'auto'; or Input should be a valid"
                " boolean"
            ],
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
