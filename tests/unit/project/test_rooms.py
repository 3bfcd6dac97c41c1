"""The shape of the package: which room may import which, how large rooms are, and that tests mirror
them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "sidtune"
# From the bottom to the top: a room may import itself and those before it.
ROOMS = (
    "base",
    "files",
    "config",
    "data",
    "events",
    "sids",
    "tasks",
    "templates",
    "tokenizer",
    "encoding",
    "metrics",
    "ranker",
    "model",
    "batching",
    "distributed",
    "runs",
    "decoding",
    "opponents",
    "evaluation",
    "inputs",
    "checks",
    "training",
    "reinforcement",
    "pipeline",
    "reporting",
    "setup",
    "exports",
    "serving",
    "playground",
    "commands",
)
# The package's own face and `python -m sidtune` stand above all rooms.
FACES = {"__init__", "__main__", "api"}
MOST_FILES = 12
# One file for each command, each section of the configuration, and each task.
LARGE_ROOMS = {"commands", "config", "tasks", "events"}
MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(module: str) -> str:
    """`training` for `sidtune.training.loss.label_loss`."""
    return module.split(".")[1]


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "sidtune":
            # `from sidtune import __version__` needs no room.
            yield from (
                f"sidtune.{name.name}" for name in node.names if (SOURCE / name.name).is_dir()
            )
        elif (
            isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sidtune.")
        ):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("sidtune."))


def test_every_room_is_known() -> None:
    found = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in MODULES}
    assert found - FACES == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_upwards(room: str) -> None:
    above = set(ROOMS[ROOMS.index(room) + 1 :]) | FACES
    for path in MODULES:
        if path.relative_to(SOURCE).parts[0].removesuffix(".py") == room:
            upward = sorted(module for module in imported(path) if room_of(module) in above)
            assert not upward, f"{path.relative_to(SOURCE)} imports {', '.join(upward)}"


def test_the_test_reads_imports() -> None:
    assert "sidtune.training.train" in set(imported(SOURCE / "commands" / "train.py"))
    assert {room_of(module) for module in imported(SOURCE / "inputs.py")} >= {
        "encoding",
        "runs",
        "tasks",
    }


def test_no_room_is_crowded() -> None:
    for folder in {path.parent for path in MODULES} - {SOURCE / room for room in LARGE_ROOMS}:
        files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, f"{folder.name}: {len(files)} files"


def test_unit_tests_mirror_the_rooms() -> None:
    unit = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(unit).as_posix() for path in unit.rglob("test_*.py")}
    assert folders - {"project"} <= {path.parent.relative_to(SOURCE).as_posix() for path in MODULES}
