"""Recipes for pretrained bases, on a tiny twin of the base's architecture and a tiny shop."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.running import run
from tests.tiny_data import write_shop
from tests.tiny_models import make_base

from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import load_config
from sidtune.training.train import train

RECIPES = Path(__file__).parents[2] / "recipes"
# The architecture of each recipe's base, and whether its embeddings are tied.
TWINS = {
    "qwen-0.5b-24gb": ("qwen2", True),
    "qwen-1.5b-80gb": ("qwen2", True),
    "qwen-8b-8x80gb": ("qwen3", False),
    "smollm2-cpu": ("llama", True),
}
SHOP = {
    "items": "Industrial_and_Scientific.item.json",
    "index": "Industrial_and_Scientific.index.json",
}


def twin(recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The recipe with a base and data of our own."""
    shop = folder / "amazon-industrial"
    for name, path in write_shop(shop).items():
        Path(path).rename(shop / SHOP.get(name, f"{name}.csv"))
    monkeypatch.setenv("SIDTUNE_DATA", str(folder))
    base = make_base(folder / "base", *TWINS[recipe])
    own = (f"model.base={base}", f"output_dir={folder / 'run'}", "rank.fit=never")
    return load_config(RECIPES / f"{recipe}.yaml", [*own, f"encoding.cache_dir={folder / 'cache'}"])


@pytest.mark.parametrize("recipe", TWINS)
def test_a_recipe_is_ready_for_its_first_step(
    tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(twin(recipe, tmp_path, monkeypatch), dry_run=True)


@pytest.mark.long
@pytest.mark.parametrize("recipe", TWINS)
def test_a_recipe_trains_to_its_end(
    tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = twin(recipe, tmp_path, monkeypatch)
    run(config)
    assert evaluate(EvaluationRequest(config.output_dir)) is not None
    assert (config.output_dir / "adapter").is_dir() == config.model.lora.save_adapter
