"""The brief training of `sidtune sids report --quick`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny_data import tiny_tree
from typer.testing import CliRunner

from sidtune.base.errors import UserError
from sidtune.commands.main import app
from sidtune.pipeline.quick import quick


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, Path]:
    """An index, and a configuration with rows but without index and model."""
    tree = tiny_tree(tmp_path)
    rows = {name: tree["data"][name] for name in ("train", "valid")}
    config = tmp_path / "rows.yaml"
    config.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "out"), "data": rows}))
    return Path(tree["data"]["index"]), config


def test_an_index_is_trained_beside_random_sids(
    shop: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "__defaults__", (4,))
    result = CliRunner().invoke(
        app, ["sids", "report", str(shop[0]), "--quick", str(shop[1]), "--json"]
    )
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)["quick"]
    assert list(found) == ["index", "random_sids"]
    assert found["index"]["rows"] == found["random_sids"]["rows"] > 10
    for one in found.values():
        assert 0 <= one["HR@10"]["low"] <= one["HR@10"]["value"] <= one["HR@10"]["high"] <= 1
    assert found["index"]["NDCG@10"] != found["random_sids"]["NDCG@10"]
    assert not (tmp_path / "out").exists(), "nothing is left"


def test_rows_that_are_missing_are_missed_in_their_file(shop: tuple[Path, Path]) -> None:
    index, config = shop
    tree = yaml.safe_load(config.read_text())
    del tree["data"]["valid"]
    config.write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match="rows are missing") as told:
        quick(index, config, steps=1)
    assert str(config) in told.value.message


def test_sids_that_open_others_are_trained_with_a_closing_token(shop: tuple[Path, Path]) -> None:
    index, config = shop
    sids = json.loads(index.read_text())
    first = next(iter(sids))
    sids[first] = sids[first][:-1]
    index.write_text(json.dumps(sids))
    assert quick(index, config, steps=1)["index"]["rows"]
