"""What a container may use counts, not what its host has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidtune.base.resources import cores, memory


def test_a_machine_without_limits(tmp_path: Path) -> None:
    assert 1 <= cores(tmp_path) <= (os.cpu_count() or 1)
    assert memory(tmp_path) > 2**28


@pytest.mark.parametrize(
    ("quota", "found"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2)]
)
def test_cores_of_a_container(
    tmp_path: Path, quota: str, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert cores(tmp_path) == found


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_memory_of_a_container(tmp_path: Path, name: str) -> None:
    whole, file = memory(tmp_path), tmp_path / name
    file.parent.mkdir(exist_ok=True)
    for text, found in (("1048576\n", 2**20), ("max\n", whole), (f"{2**62}\n", whole)):
        file.write_text(text)
        assert memory(tmp_path) == found


def test_memory_that_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert memory(tmp_path) == 0
