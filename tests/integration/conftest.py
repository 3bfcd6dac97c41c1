"""One model trained in seconds, for all tests that ask it something."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.tiny_data import tiny_config

from sidtune.pipeline.rank import rank_run
from sidtune.tasks.config import Config
from sidtune.training.train import train


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A trained run."""
    made = tiny_config(
        tmp_path_factory.mktemp("shop"),
        training={"epochs": 4, "batch_size": 16, "learning_rate": 0.01},
    )
    assert train(made)
    return made


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Path:
    """The run's folder, to write into."""
    copy = tmp_path / "run"
    shutil.copytree(config.output_dir, copy)
    return copy


@pytest.fixture(scope="session")
def ranked(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder with a ranker beside the model; not to be written into."""
    copy = tmp_path_factory.mktemp("ranked") / "run"
    shutil.copytree(config.output_dir, copy)
    rank_run(copy)
    return copy
