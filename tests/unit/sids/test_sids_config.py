"""The section `sids`: what is refused, and that a resolved configuration reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests.tiny_data import tiny_config, tiny_tree

from sidtune.config.sids import SidsConfig
from sidtune.tasks.config_file import dump_config, parse_config


@pytest.mark.parametrize(
    "section",
    [
        {},
        {
            "vectors": {"text": 1, "co_occurrence": 0.5},
            "co_occurrence_dimensions": 32,
            "levels": [64, 32],
        },
        {"vectors": "file", "file": "/somewhere/v.npy", "collisions": "keep"},
    ],
)
def test_a_resolved_section_reads_back(tmp_path: Path, section: dict[str, Any]) -> None:
    config = tiny_config(tmp_path, sids=section)
    assert config.sids == SidsConfig.model_validate(section)
    assert parse_config(yaml.safe_load(dump_config(config)), "test").sids == config.sids
    assert SidsConfig.model_validate(config.sids.resolved()) == config.sids


def test_a_configuration_without_the_section_has_none(tmp_path: Path) -> None:
    assert "sids" not in yaml.safe_load(dump_config(parse_config(tiny_tree(tmp_path), "test")))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"vectors": {}}, "vectors: none given"),
        ({"vectors": "sound"}, "vectors"),
        ({"vectors": {"text": -1}}, "greater than 0"),
        ({"vectors": "file"}, "vectors: file needs sids.file"),
        (
            {"vectors": "file", "file": "v.npy", "columns": ["brand"]},
            "columns has no effect with these vectors",
        ),
        ({"text_dimensions": 64, "vectors": "co_occurrence"}, "text_dimensions has no effect"),
        ({"levels": []}, "give the codebook sizes of 1 to 16 levels"),
        ({"levels": [1]}, "greater than or equal to 2"),
        ({"levels": [65_536] * 4}, "more SIDs than can be counted"),
        ({"quantizer": "kmeans"}, "quantizer"),
    ],
)
def test_sections_without_a_meaning_are_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SidsConfig.model_validate(section)
