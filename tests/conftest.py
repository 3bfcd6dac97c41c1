"""Settings and fixtures of the whole suite."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models are faster on one thread, and on a busy machine much faster. Set before anything
# imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


def _real_data(name: str) -> Path:
    root = Path(os.environ.get("SIDTUNE_DATA", Path(__file__).parents[1] / "../shared/data"))
    if not (root / name).is_dir():
        pytest.skip(f"no real data at {root / name}; set SIDTUNE_DATA")
    return root / name


@pytest.fixture(scope="session")
def amazon() -> Path:
    """The folder of real data, or a skip that says why."""
    return _real_data("amazon-industrial")


@pytest.fixture(scope="session")
def instruments() -> Path:
    """Real whole histories, or a skip that says why."""
    return _real_data("instruments")
