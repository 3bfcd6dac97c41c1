"""Frozen checkpoints write the base's weights once: later ones hold links to files that are as they
were written.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny_models import ARCHITECTURES, make_base
from tests.unit.model.tuning.test_frozen import TIES, load
from tests.unit.runs.test_checkpoints import Death, dying
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from sidtune.files.weight_files import INDEX, load_weights, shard_names
from sidtune.model.checkpoint_files import (
    load_training_state,
    plain_state_dict,
    save_training_state,
)
from sidtune.model.tuning.frozen import sid_rows
from sidtune.model.unchanged import Unchanged
from sidtune.runs import checkpoints
from sidtune.runs.checkpoints import damage, newest_complete

FROZEN, CHANGED = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


class Run:
    """Saves a frozen model as the Trainer does, after moving its rows."""

    def __init__(self, folder: Path, architecture: str = "qwen3", tied: bool = True) -> None:
        self.base = folder / "base"
        if not self.base.exists():
            make_base(self.base, architecture, tied, dtype=torch.bfloat16)
        self.model, vocabulary = load(self.base, "frozen")
        self.tokenizer: PreTrainedTokenizerFast = vocabulary.tokenizer
        self.folder, self.unchanged = folder / "run", Unchanged()

    def save(self, step: int, limit: int = 9) -> Path:
        with torch.no_grad():
            for row in sid_rows(self.model).values():
                row.copy_(torch.randn(row.shape, generator=torch.Generator().manual_seed(step)))
        final = self.folder / f"checkpoint-{step}"
        partial = checkpoints.make_partial(final)
        known = save_training_state(self.model, self.tokenizer, partial, self.unchanged)
        manifest = checkpoints.seal(partial, {"seed": 1}, known)
        checkpoints.publish(partial, final)
        self.unchanged.remember(final, manifest, shard_names(final / INDEX))
        checkpoints.rotate(final, limit, None)
        return final

    def loads_alone(self, checkpoint: Path, moved: Path) -> None:
        """A copy elsewhere is whole, an ordinary model, and what training goes on from."""
        shutil.copytree(checkpoint, moved)
        assert damage(moved) is None
        plain: PreTrainedModel = AutoModelForCausalLM.from_pretrained(moved, dtype="auto")
        expected = plain_state_dict(self.model)
        found = plain.state_dict()
        names = expected.keys() & found.keys()
        assert len(names) > 5
        assert all(torch.equal(found[name], expected[name]) for name in names)
        other, _ = load(self.base, "frozen", seed=9)
        load_training_state(other, moved)
        assert all(
            torch.equal(sid_rows(other)[name], row) for name, row in sid_rows(self.model).items()
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@TIES
def test_the_second_checkpoint_links_what_stays(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    run = Run(tmp_path, architecture, tied)
    first, second = run.save(1), run.save(2)
    assert os.path.samefile(first / FROZEN, second / FROZEN)
    assert not os.path.samefile(first / CHANGED, second / CHANGED)
    assert (first / CHANGED).read_bytes() != (second / CHANGED).read_bytes()
    assert shard_names(second / INDEX) == [FROZEN, CHANGED]
    for checkpoint in (first, second):
        assert damage(checkpoint) is None
        assert not (checkpoint / "frozen").exists()
    checkpoints.remove(first)
    run.loads_alone(second, tmp_path / "moved")
    saved = AutoModelForCausalLM.from_pretrained(second, dtype="auto")
    saved.save_pretrained(tmp_path / "whole")
    assert load_weights(tmp_path / "whole").keys() == load_weights(second).keys(), (
        "the names of an ordinary file"
    )


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))


def replaced(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-3] + b"\0\0\0")


def linked_away(file: Path) -> None:
    file.rename(file.with_suffix(".moved"))
    file.symlink_to(file.with_suffix(".moved"))


@pytest.mark.parametrize(
    "harm",
    [
        flipped,
        replaced,
        linked_away,
        Path.unlink,
        lambda file: os.truncate(file, 99),
        lambda f: shutil.rmtree(f.parent),
    ],
    ids=["flipped", "replaced", "linked-away", "gone", "cut", "folder-gone"],
)
def test_a_damaged_file_is_not_passed_on(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    run = Run(tmp_path)
    first = run.save(1)
    harm(first / FROZEN)
    second = run.save(2)
    assert damage(second) is None
    run.loads_alone(second, tmp_path / "moved")
    assert os.path.samefile(second / FROZEN, run.save(3) / FROZEN)


@pytest.mark.parametrize("unnoticed", [False, True], ids=["sound", "damaged"])
def test_where_links_fail_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnoticed: bool
) -> None:
    """A copy is held against its checksum, so that damage which no time stamp shows is not passed
    on either.
    """

    def failing(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    run = Run(tmp_path)
    first = run.save(1)
    if unnoticed:
        times = (first / FROZEN).stat()
        flipped(first / FROZEN)
        os.utime(first / FROZEN, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr(os, "link", failing)
    second = run.save(2)
    assert not os.path.samefile(first / FROZEN, second / FROZEN)
    run.loads_alone(second, tmp_path / "moved")


def test_whatever_moment_it_dies_at_a_complete_checkpoint_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    run = Run(tmp_path)
    for at in itertools.count(1):
        run.folder, run.unchanged = tmp_path / str(at), Unchanged()
        run.save(1)
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Death):
            dying(patch, at)
            run.save(2, limit=1)
            break
        newest, skipped = newest_complete(run.folder)
        assert newest is not None
        assert not skipped, "what is not complete is not visible"
        checkpoints.clean(run.folder)
        run.save(3, limit=1)
        assert newest_complete(run.folder) == (run.folder / "checkpoint-3", [])
        shutil.rmtree(run.folder)
    assert at > 20, "every moment was tried"
