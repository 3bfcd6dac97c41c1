"""Small results beside the encoded tasks: found again, made again when damaged, never
half-written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidtune.encoding.remember import remembered

VALUE = {"a": [1, 2, 3], "b": "ü"}


def ask(cache: Path, calls: list[int], fingerprint: dict[str, Any] | None = None) -> Any:
    def compute() -> Any:
        calls.append(1)
        return VALUE

    return remembered("found", fingerprint or {"a": 1}, cache / "new", compute)


def test_computed_once_for_each_fingerprint(tmp_path: Path) -> None:
    calls: list[int] = []
    assert ask(tmp_path, calls) == ask(tmp_path, calls) == VALUE
    assert len(calls) == 1
    assert ask(tmp_path, calls, {"a": 2}) == VALUE
    assert len(calls) == 2


@pytest.mark.parametrize("harm", [b"", b"[]", b'{"value": 1}', b"null", None, b"\xff"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, harm: bytes | None) -> None:
    calls: list[int] = []
    ask(tmp_path, calls)
    (entry,) = (tmp_path / "new").iterdir()
    # Where nothing else is done to it, one figure of the value is another.
    entry.write_bytes(entry.read_bytes().replace(b"2", b"4", 1) if harm is None else harm)
    assert ask(tmp_path, calls) == ask(tmp_path, calls) == VALUE
    assert len(calls) == 2


def test_a_sound_entry_of_another_process_stays(tmp_path: Path) -> None:
    """Published after this process looked, before it publishes its own."""
    theirs = remembered("found", {"a": 1}, tmp_path, lambda: VALUE)
    (entry,) = tmp_path.iterdir()
    sound = entry.read_bytes()
    entry.write_text("{")

    def compute() -> Any:
        entry.unlink()
        entry.write_bytes(sound)
        return {"mine": 1}

    assert remembered("found", {"a": 1}, tmp_path, compute) == theirs
    assert list(tmp_path.iterdir()) == [entry]
    assert entry.read_bytes() == sound


def test_the_entry_may_be_read_by_everyone_whom_the_folder_lets_in(tmp_path: Path) -> None:
    ask(tmp_path, [])
    (tmp_path / "plain").touch()
    (entry,) = (tmp_path / "new").iterdir()
    assert entry.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        remembered("found", {}, tmp_path, lambda: object())
    with pytest.raises(ZeroDivisionError):
        remembered("found", {}, tmp_path, lambda: 1 // 0)
    assert list(tmp_path.iterdir()) == []
