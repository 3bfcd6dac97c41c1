"""The audit in `make check`: what it makes of pip-audit's answers, and that it says nothing about
the network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / ".ci" / "audit.py"
HARMLESS = {"name": "a", "version": "1", "vulns": []}
OPEN = {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": []}]}
MENDED = {"name": "c", "version": "3", "vulns": [{"id": "X-2", "fix_versions": ["3.1", "4.0"]}]}
UNKNOWN = {"name": "d", "skip_reason": "not found on somewhere.example"}


def audited(folder: Path, code: str) -> tuple[int, str]:
    """The script with another program in pip-audit's place."""
    (folder / "pip_audit.py").write_text(code)
    done = subprocess.run(
        [sys.executable, SCRIPT],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([HARMLESS, UNKNOWN], 0, "1 of 2 packages looked up, 0 advisories"),
        ([HARMLESS, OPEN], 0, "b 2: X-1, mended in no version yet"),
        ([HARMLESS, OPEN, MENDED], 1, "c 3: X-2, mended in 3.1, 4.0"),
        ([UNKNOWN], 0, "skipped"),
    ],
)
def test_what_can_be_updated_fails(
    tmp_path: Path, packages: list[Any], status: int, said: str
) -> None:
    answer = json.dumps({"dependencies": packages, "fixes": []})
    code, text = audited(tmp_path, f"import sys\nprint({answer!r})\nsys.exit(1)")
    assert (code, said in text, "example" in text) == (status, True, False), text


def test_without_an_answer_it_is_skipped_with_a_word(tmp_path: Path) -> None:
    code, text = audited(tmp_path, "raise ConnectionError('https://somewhere.example refused')")
    assert (code, text) == (0, "pip-audit: skipped, no service for advisories answers\n")


@pytest.mark.parametrize(
    "code", ["raise TypeError('somewhere.example')", "print('no such option')", "print('{}')"]
)
def test_an_audit_that_breaks_is_no_audit(tmp_path: Path, code: str) -> None:
    status, text = audited(tmp_path, code)
    assert (status, "failed, and not for want of an answer" in text, "example" in text) == (
        1,
        True,
        False,
    ), text
