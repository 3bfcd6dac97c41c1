"""What a process that another launcher started says of the stages that it leaves out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sidtune.base.terminal import LAUNCHER, OWN_LAUNCHER
from sidtune.commands.stages import finish


@pytest.mark.parametrize(
    ("rank", "own", "fit", "said"),
    [
        ("0", False, "auto", "Next: `sidtune rank run` fits the ranker; `sidtune report run`"),
        ("0", False, "never", "Next: `sidtune report run` writes the report."),
        ("1", False, "auto", ""),
        ("0", True, "auto", ""),
    ],
)
def test_torchrun_leaves_ranker_and_report_to_the_user(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: str,
    own: bool,
    fit: str,
    said: str,
) -> None:
    for name in LAUNCHER:
        monkeypatch.setenv(name, rank)
    if own:
        monkeypatch.setenv(OWN_LAUNCHER, "1")
    run: Any = SimpleNamespace(output_dir=Path("run"), rank=SimpleNamespace(fit=fit))
    finish(run, False)
    output = " ".join(capsys.readouterr().out.split())
    assert said in output if said else not output
