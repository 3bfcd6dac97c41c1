"""The examples run, and the notebook is the script."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.asking import call

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "python_api.py"
SIZES = 'FOLDER, USERS, EPOCHS = Path("python-api"), 400, 8'


def in_this_process(command: list[str], check: bool) -> None:
    """What the script starts, without importing torch once more."""
    assert command[:3] == [sys.executable, "-m", "sidtune"]
    assert check
    done = call(*command[3:])
    assert done.exit_code == 0, done.output


def test_the_notebook_runs_and_recommends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", in_this_process)
    notebook = json.loads(SCRIPT.with_suffix(".ipynb").read_text(encoding="utf-8"))
    cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code = "\n".join("".join(cell) for cell in cells)
    assert SIZES in code
    names: dict[str, Any] = {}
    exec(code.replace(SIZES, 'FOLDER, USERS, EPOCHS = Path("small"), 40, 2'), names)
    assert (tmp_path / "small" / "run" / "model.safetensors").exists()
    assert names["report"].rows == 40
    shown = capsys.readouterr().out.splitlines()
    assert len(names["recommender"].recommend([names["history"]], k=3)[0]) == 3
    assert "From the" in shown[-1]


def test_the_notebook_is_the_script() -> None:
    draw = runpy.run_path(str(EXAMPLES / "notebook.py"))["draw"]
    drawn = draw(SCRIPT.read_text(encoding="utf-8"))
    assert SCRIPT.with_suffix(".ipynb").read_text(encoding="utf-8") == drawn
    assert [cell["cell_type"] for cell in json.loads(drawn)["cells"][:2]] == ["markdown", "code"]
