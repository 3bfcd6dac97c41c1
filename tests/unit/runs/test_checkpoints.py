"""Checkpoints are complete or absent, whatever moment a process dies at; damage is
found and named.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidtune.base import storage
from sidtune.base.errors import UserError
from sidtune.runs import checkpoints
from sidtune.runs.checkpoints import MANIFEST, damage, newest_complete

IDENTITY = {"seed": 1, "processes": 1}


def write(run: Path, step: int, limit: int = 1, best: Path | None = None) -> Path:
    """As a run does it."""
    final = run / f"checkpoint-{step}"
    partial = checkpoints.make_partial(final)
    for name in ("model.safetensors", "optimizer.pt"):
        (partial / name).write_bytes(f"{name} of step {step}".encode() * 9)
    (partial / "more").mkdir()
    (partial / "more" / "file.json").write_text("{}")
    checkpoints.seal(partial, IDENTITY)
    checkpoints.publish(partial, final)
    checkpoints.rotate(final, limit, best)
    return final


class Death(BaseException):
    """The process dies here."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Die before the n-th call that changes what is on disk or waits for it; deleting may die
    half-way.
    """
    calls = [0]

    def counted(ordinary: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == at:
                raise Death
            return ordinary(*args, **kwargs)

        return call

    def half_deleted(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            counted(lambda: None)()
            (path / "model.safetensors").unlink(missing_ok=True)
            counted(ordinary_rmtree)(path)

    ordinary_rmtree = shutil.rmtree
    for name in ("rename", "fsync", "open"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(Path, "write_bytes", counted(Path.write_bytes))
    monkeypatch.setattr(Path, "write_text", counted(Path.write_text))
    monkeypatch.setattr(shutil, "rmtree", half_deleted)


def test_whatever_moment_a_run_dies_at_a_complete_checkpoint_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether the disk has it makes no difference to what a process sees that comes later.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for at in itertools.count(1):
        run = tmp_path / str(at)
        write(run, 1)
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Death):
            dying(patch, at)
            write(run, 2)
            write(run, 3)
            break
        newest, skipped = newest_complete(run)
        assert newest is not None
        assert not skipped, "what is not complete is not visible"
        checkpoints.clean(run)
        assert {path.name for path in run.iterdir()} == {
            path.name for path in checkpoints.checkpoints(run)
        }
        final = write(run, 4)
        assert checkpoints.checkpoints(run) == [final]
    assert at > 60, "every moment was tried"


def test_files_are_on_disk_before_their_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    ordinary_rename = os.rename

    def rename(source: Path, target: Path) -> None:
        done.append(("rename", target.name))
        ordinary_rename(source, target)

    for module in (checkpoints, storage):
        monkeypatch.setattr(module, "flush", lambda path: done.append(("flush", path.name)))
    monkeypatch.setattr(os, "rename", rename)
    run = tmp_path / "run"
    write(run, 1)
    write(run, 2)
    shown = done.index(("rename", "checkpoint-2"))
    before, behind = done[done.index(("rename", "checkpoint-1")) + 1 : shown], done[shown + 1 :]
    names = {"model.safetensors", "optimizer.pt", "more", "file.json", "sidtune.json", MANIFEST}
    assert {name for call, name in before if call == "flush"} >= {*names, ".checkpoint-2.partial"}
    assert behind[0] == ("flush", "run"), "and the name before the older checkpoint goes"
    assert behind[-2:] == [("rename", ".checkpoint-1.deleted"), ("flush", "run")]


def test_the_best_and_the_newest_are_kept(tmp_path: Path) -> None:
    best = write(tmp_path, 1)
    for step in (2, 3, 4, 5):
        write(tmp_path, step, limit=2, best=best)
    assert [checkpoints.step_of(path) for path in checkpoints.checkpoints(tmp_path)] == [5, 4, 1]


def test_damaged_checkpoints_of_later_steps_push_no_complete_one_out(tmp_path: Path) -> None:
    """A run went on from step 3 since that of step 9 is damaged, and saves between the two."""
    for step in (3, 9):
        write(tmp_path, step, limit=9)
    (tmp_path / "checkpoint-9" / "model.safetensors").unlink()
    newest = write(tmp_path, 4)
    assert checkpoints.checkpoints(tmp_path) == [newest]
    assert newest_complete(tmp_path) == (newest, [])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def listed(checkpoint: Path, name: str, entry: object) -> None:
    """Put an entry into a manifest."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps(manifest | {name: entry}))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (
            lambda c: flip(c / "model.safetensors"),
            "model.safetensors has changed since it was written",
        ),
        (lambda c: os.truncate(c / "optimizer.pt", 5), "optimizer.pt has 5 of 198 bytes"),
        (
            lambda c: (c / "optimizer.pt").write_bytes(b"x" * 300),
            "optimizer.pt has 300 of 198 bytes",
        ),
        (lambda c: (c / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda c: shutil.rmtree(c / "more"), "more/file.json is missing"),
        (lambda c: (c / MANIFEST).unlink(), "manifest.json is missing"),
        (lambda c: (c / MANIFEST).write_text("{"), "manifest.json cannot be read"),
        (lambda c: (c / MANIFEST).write_text("[" * 100_000), "manifest.json cannot be read"),
        (lambda c: (c / MANIFEST).write_text('["x"]'), "manifest.json cannot be read"),
        (lambda c: (c / MANIFEST).write_text("{}"), "manifest.json cannot be read"),
        (
            lambda c: listed(c, "../secret", {"bytes": 3, "sha256": ""}),
            "manifest.json cannot be read",
        ),
        (
            lambda c: listed(c, "/etc/passwd", {"bytes": 3, "sha256": ""}),
            "manifest.json cannot be read",
        ),
        (lambda c: listed(c, "model.safetensors", None), "manifest.json cannot be read"),
        (lambda c: listed(c, "optimizer.pt", 198), "manifest.json cannot be read"),
        (lambda c: listed(c, "optimizer.pt", {"bytes": 198}), "optimizer.pt has changed"),
        (lambda c: listed(c, "model.safetensors\0", {"bytes": 9}), "cannot be read"),
    ],
)
def test_damage_is_named(tmp_path: Path, harm: Callable[[Path], object], reason: str) -> None:
    older, newer = write(tmp_path, 1, limit=9), write(tmp_path, 2, limit=9)
    assert damage(newer) is None
    harm(newer)
    found, skipped = newest_complete(tmp_path)
    assert found == older
    assert [folder for folder, _ in skipped] == [newer]
    assert reason in skipped[0].reason


def test_a_flipped_bit_in_any_byte_of_any_file_is_found(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 1)
    for path in (
        checkpoint / "model.safetensors",
        checkpoint / "sidtune.json",
        checkpoint / "more" / "file.json",
    ):
        content = path.read_bytes()
        for place in range(len(content)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(bytes(flipped))
            assert (
                damage(checkpoint)
                == f"{path.relative_to(checkpoint)} has changed since it was written"
            )
        path.write_bytes(content)
    assert damage(checkpoint) is None


def test_cleaning_touches_leftovers_alone(tmp_path: Path) -> None:
    ours = [
        ".checkpoint-7.partial",
        ".checkpoint-7.deleted",
        ".final_checkpoint.partial",
        ".final_checkpoint.deleted",
    ]
    others = [
        ".checkpoint-x.partial",
        ".git",
        ".lock",
        "checkpoint-7",
        "x.checkpoint-7.partial",
        ".checkpoint-7.partial2",
    ]
    for name in ours + others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    checkpoints.clean(tmp_path)
    checkpoints.clean(tmp_path / "nowhere")
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_a_leftover_that_is_a_link_leads_to_no_deletion(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".checkpoint-7.partial").symlink_to(tmp_path / "precious")
    checkpoints.clean(tmp_path / "run")
    assert (tmp_path / "precious" / "file").exists()


def test_another_number_of_processes_is_a_choice(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 1)
    with pytest.raises(UserError, match="processes: 1 in the checkpoint, 2 now") as refusal:
        checkpoints.compare_identity(checkpoint, {**IDENTITY, "processes": 2})
    assert "--allow-other-processes" in refusal.value.hint
    checkpoints.compare_identity(checkpoint, {**IDENTITY, "processes": 2}, other_processes=True)
    with pytest.raises(UserError, match="seed: 1 in the checkpoint, 2 now") as refusal:
        checkpoints.compare_identity(checkpoint, {"seed": 2, "processes": 2}, other_processes=True)
    assert "--allow-other-processes" not in refusal.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_an_identity_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "sidtune.json").write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        checkpoints.compare_identity(tmp_path, IDENTITY)
