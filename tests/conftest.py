"""Settings and fixtures of the whole suite."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models are faster on one thread, and on a busy machine much faster. Set before anything
# imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


def pytest_collection_finish() -> None:
    """Leave what was imported to no collection of garbage: every run collects twice, which takes
    longer than its steps where torch and all tests are looked through.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Whether the disk has it makes no difference to what a process sees that comes later.

    Processes that tests start do wait for it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


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
