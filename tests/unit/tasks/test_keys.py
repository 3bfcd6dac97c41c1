"""The keys of the configuration: their help, how they are found, and the JSON Schema of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sidtune.base.errors import UserError
from sidtune.tasks.keys import all_keys, find_key, json_schema

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SHORT: dict[str, Any] = {
    "output_dir": "runs/shop",
    "events": {"files": "events.csv", "start": "2018-10-01", "k_core": {"user": 5, "item": 3}},
    "sids": None,
    "model": {"tuning": "frozen"},
    "tasks": {"fusion": {"target": "both", "weight": 0.5}, "sid_next": None},
    "training": {"max_tokens": "auto", "warmup": 0.1},
    "stages": [{"tuning": "full"}],
}


def faults(tree: Any) -> list[str]:
    """Where a file breaks the schema."""
    checker = jsonschema.Draft202012Validator(json_schema())
    return [".".join(map(str, error.absolute_path)) for error in checker.iter_errors(tree)]


def test_every_key_says_what_it_means_and_what_it_takes() -> None:
    for key in all_keys().values():
        assert key.help, key.name
        assert "any value" not in key.type, key.name
        assert "](" not in key.help, "links are for the page alone"


@pytest.mark.parametrize(
    ("name", "type_", "default"),
    [
        ("training.group_by", "user or example", "user"),
        ("training.warmup", "whole number at least 0 or number above 0 and below 1", "20"),
        ("training.learning_rate", "number above 0", "0.0003"),
        ("eval.ranking.every", "whole number at least 1 or null", "null"),
        ("events.shares", "list of 3: whole number at least 1 or null", "null"),
        ("events.k_core", "whole number at least 1 or {user, item} or null", "null"),
        ("events.start", "date, or date and time, or null", "null"),
        ("sids.vectors", None, "text"),
        ("catalogue.file", "path", "required"),
        ("stages.tuning", "full, frozen or lora", "required"),
        ("data.index", "path", "null"),
        ("model.base", "text", "null"),
        ("tasks.fusion.target", "title, description or both", "title"),
        ("tasks.sid_next.weight", "number above 0 and at most 1,000", "1.0"),
    ],
)
def test_types_and_defaults_in_words(name: str, type_: str | None, default: str) -> None:
    key = find_key(name)
    assert type_ is None or key.type == type_
    assert key.default == default


def test_a_key_is_found_by_its_last_word_if_that_is_clear() -> None:
    assert find_key("group_by").name == "training.group_by"
    assert find_key("ranking.beams").name == "eval.ranking.beams"
    assert find_key("training").is_section
    with pytest.raises(UserError, match=r"eval\.every.*logging\.every"):
        find_key("every")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("training.group_bye", "training.group_by"),
        ("trainig", "training"),
        ("model.group_bye", "training.group_by"),
        ("weight_decy", "training.weight_decay"),
    ],
)
def test_an_unknown_key_names_the_nearest(word: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {meant}\\?") as refusal:
        find_key(word)
    assert "sidtune explain" in refusal.value.hint


def test_the_schema_takes_what_the_reader_takes() -> None:
    assert faults(SHORT) == []
    for recipe in RECIPES:
        assert faults(yaml.safe_load(recipe.read_text())) == [], recipe.name


@pytest.mark.parametrize(
    ("section", "value", "where"),
    [
        ("training", {"epoch": 3}, "training"),
        ("training", {"layout": "forest"}, "training"),
        ("tasks", {"fushion": None}, "tasks"),
        ("tasks", {"fusion": {"target": "name"}}, "tasks.fusion"),
        ("catalogue", {"id": "sku"}, "catalogue"),
        ("output_dir", 3, "output_dir"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(section: str, value: Any, where: str) -> None:
    assert any(fault.startswith(where) for fault in faults({**SHORT, section: value}))
