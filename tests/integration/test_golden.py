"""Encoded examples and losses are those that were kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.golden_run import FILE, measure

from sidtune.encoding.corpus import FORMAT_VERSION


def test_ids_change_with_the_format_version_alone_and_losses_not_at_all(tmp_path: Path) -> None:
    kept, found = json.loads(FILE.read_text()), measure(tmp_path)
    assert kept["format_version"] == FORMAT_VERSION, (
        "keep the new format: python -m tests.golden_run"
    )
    assert found["examples"] == kept["examples"], "the encoded cache changed: raise FORMAT_VERSION"
    assert found["losses"] == pytest.approx(kept["losses"], rel=1e-3)
