"""The cache of encoded examples: found again, rebuilt when damaged, never trusted when
half-written.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_data import tiny_config

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.encoding import corpus
from sidtune.encoding.build import Mixture, load_catalogue
from sidtune.encoding.corpus import Corpus, EncodedTask, cached_task
from sidtune.encoding.encoded import Encoded
from sidtune.encoding.remember import remembered
from sidtune.tasks.config import Config
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import extend_vocabulary

CHUNKS = [([[1, 2, 3], [4, 5]], [[1, 3], [1, 2]]), ([[6, 7, 8, 9]], [[1, 2, 3, 4]])]


def chunks() -> Iterator[Encoded]:
    for ids, spans in CHUNKS:
        yield Encoded(
            Ragged.from_lists(ids),
            Ragged.from_lists(spans),
            np.arange(len(ids)),
            np.arange(len(ids)),
            1,
            2,
        )


def store(cache: Path, calls: list[int], fingerprint: dict[str, Any] | None = None) -> EncodedTask:
    def encode() -> Iterator[Encoded]:
        calls.append(1)
        return chunks()

    return cached_task("t", fingerprint or {"a": 1}, cache, encode)


def contents(task: EncodedTask) -> list[tuple[list[int], list[list[int]]]]:
    return [(task[i][0].tolist(), task[i][1].tolist()) for i in range(len(task))]


EXPECTED = [([1, 2, 3], [[1, 3]]), ([4, 5], [[1, 2]]), ([6, 7, 8, 9], [[1, 2], [3, 4]])]


def test_examples_come_back(tmp_path: Path) -> None:
    task = store(tmp_path, [])
    assert contents(task) == EXPECTED
    assert task.lengths.tolist() == [3, 2, 4]
    assert task.label_counts.tolist() == [2, 1, 2]
    counts = task.counts
    assert (counts.examples, counts.tokens, counts.labels, counts.longest) == (3, 9, 5, 4)
    assert (counts.truncated, counts.dropped) == (2, 4)


def test_a_corpus_numbers_its_tasks(tmp_path: Path) -> None:
    corpus = Corpus([store(tmp_path, []), store(tmp_path, [], {"a": 2})])
    assert len(corpus) == 6
    assert [corpus[i][2] for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert corpus[5][0].tolist() == [6, 7, 8, 9]


def test_the_second_time_nothing_is_encoded(tmp_path: Path) -> None:
    calls: list[int] = []
    store(tmp_path, calls)
    assert contents(store(tmp_path, calls)) == EXPECTED
    assert len(calls) == 1
    store(tmp_path, calls, {"a": 2})
    assert len(calls) == 2, "another fingerprint is another entry"


@pytest.mark.parametrize("file", ["examples.arrow", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncate", "flip", "delete"])
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, file: str, harm: str) -> None:
    calls: list[int] = []
    victim = store(tmp_path, calls).folder / file
    data = victim.read_bytes()
    if harm == "delete":
        victim.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:20] + bytes([data[20] ^ 255]) + data[21:]
        victim.write_bytes(data[:middle] if harm == "truncate" else flipped)
    assert contents(store(tmp_path, calls)) == EXPECTED
    assert len(calls) == 2


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> Iterator[Encoded]:
        yield from chunks()
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        cached_task("t", {"a": 1}, tmp_path, failing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("late", [False, True])
def test_an_error_from_elsewhere_is_not_blamed_on_the_cache(tmp_path: Path, late: bool) -> None:
    lost = OSError(errno.EIO, "Input/output error", "train.csv")

    def fail() -> Iterator[Encoded]:
        raise lost

    def failing() -> Iterator[Encoded]:
        yield from chunks()
        yield from fail()

    with pytest.raises(OSError, match=r"Input/output error: 'train\.csv'") as raised:
        cached_task("t", {"a": 1}, tmp_path, failing if late else fail)
    assert raised.value is lost
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "Free disk space there, or"), (errno.EACCES, "Make it readable and writable,")],
)
def test_an_error_of_the_cache_names_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(corpus, "_publish", failing)
    with pytest.raises(UserError, match=r"encoding\.cache_dir .* cannot be used: ") as refusal:
        cached_task("t", {"a": 1}, tmp_path, chunks)
    assert advice in refusal.value.hint


# --- several processes ---

PROCESSES, ROUNDS = 4, 60
FINGERPRINT = {"a": 1}


def elsewhere(cache: Path) -> EncodedTask:
    """What a second process does from its start to its end."""
    return cached_task("t", FINGERPRINT, cache, chunks)


def harm(task: EncodedTask) -> None:
    (task.folder / "examples.arrow").write_bytes(b"torn")


def places(task: EncodedTask) -> list[int]:
    """The files of an entry, as the file system numbers them."""
    return [(task.folder / file).stat().st_ino for file in ("examples.arrow", "manifest.json")]


@pytest.mark.parametrize("damaged", [False, True], ids=["empty", "damaged"])
def test_an_entry_published_while_this_process_encoded_is_used(
    tmp_path: Path, damaged: bool
) -> None:
    if damaged:
        harm(elsewhere(tmp_path))
    theirs: list[list[int]] = []

    def encode() -> Iterator[Encoded]:
        theirs.append(places(elsewhere(tmp_path)))
        yield from chunks()

    mine = cached_task("t", FINGERPRINT, tmp_path, encode)
    assert [places(mine)] == theirs, "the very files, which the other process has open"
    assert contents(mine) == EXPECTED
    assert list(tmp_path.iterdir()) == [mine.folder]


class Interleaved:
    """Lets something happen just before a rename of this process.

    Args:
        number: which rename, from 0.
        happening: what.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, number: int, happening: Callable[[], object]
    ) -> None:
        self.ordinary, self.left, self.happening = os.rename, number, happening
        monkeypatch.setattr(corpus.os, "rename", self)

    def __call__(self, source: Path, target: Path) -> None:
        self.left -= 1
        if self.left == -1:
            self.happening()
        self.ordinary(source, target)


@pytest.mark.parametrize("number", range(3))
def test_an_entry_published_before_any_rename_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The renames over a damaged entry: in vain, the damaged one out of the way, the own one into
    its place.

    The second is the one that looks again right before and may still be too late.
    """
    harm(elsewhere(tmp_path))
    theirs: list[list[int]] = []
    Interleaved(monkeypatch, number, lambda: theirs.append(places(elsewhere(tmp_path))))
    mine = store(tmp_path, [])
    assert [places(mine)] == theirs
    assert contents(mine) == EXPECTED
    assert list(tmp_path.iterdir()) == [mine.folder]


def test_an_entry_that_cannot_be_put_back_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process publishes before this one moves what it thinks damaged; a third one before
    it is put back.
    """
    harm(elsewhere(tmp_path))
    second: list[EncodedTask] = []
    third: list[list[int]] = []

    def happening() -> None:
        second.append(elsewhere(tmp_path))
        Interleaved(monkeypatch, 0, lambda: third.append(places(elsewhere(tmp_path))))

    Interleaved(monkeypatch, 1, happening)
    mine = store(tmp_path, [])
    assert [places(mine)] == third
    assert contents(mine) == contents(second[0]) == EXPECTED
    moved = [folder for folder in tmp_path.iterdir() if folder != mine.folder]
    assert [contents(EncodedTask("t", folder)) for folder in moved] == [EXPECTED], (
        "another machine may have it mapped"
    )


def test_an_entry_that_is_missing_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process of a loader that opens it again by its name."""
    folder = elsewhere(tmp_path).folder
    os.rename(folder, tmp_path / "moved")
    monkeypatch.setattr(corpus.time, "sleep", lambda _: os.rename(tmp_path / "moved", folder))
    assert contents(EncodedTask("t", folder)) == EXPECTED


def test_an_entry_may_be_read_by_everyone_whom_the_folder_lets_in(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert elsewhere(tmp_path).folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


def race(folder: Path, damaged: bool, barrier: Any) -> None:
    for turn in range(ROUNDS):
        barrier.wait(60)
        task = elsewhere(folder / str(turn))
        found = places(task)
        assert contents(task) == EXPECTED
        assert remembered("found", FINGERPRINT, folder / str(turn), lambda: {"a": 1}) == {"a": 1}
        # Opened again by its name, as processes of a loader do.
        assert contents(EncodedTask("t", task.folder)) == EXPECTED
        barrier.wait(60)
        assert damaged or places(task) == found, "one entry, which all of them use"


@pytest.mark.parametrize("damaged", [False, True], ids=["empty", "damaged"])
def test_processes_that_start_at_once_with_one_cache(tmp_path: Path, damaged: bool) -> None:
    if damaged:
        entry = elsewhere(tmp_path / "0").folder
        harm(EncodedTask("t", entry))
        for turn in range(1, ROUNDS):
            shutil.copytree(tmp_path / "0", tmp_path / str(turn))
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES)
    processes = [
        context.Process(target=race, args=(tmp_path, damaged, barrier)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES


def entries(config: Config) -> set[str]:
    catalogue = load_catalogue(config)
    vocabulary = extend_vocabulary(load_tokenizer(config.model.base), catalogue.sid_tokens)
    return {task.folder.name for task in Mixture(config, catalogue, vocabulary).train()}


def test_the_fingerprint_covers_what_the_examples_depend_on(tmp_path: Path) -> None:
    one: dict[str, Any] = {"tasks": {"sid_next": None, "fusion": None}}
    before = entries(tiny_config(tmp_path, **one))
    template = tmp_path / "t.yaml"
    template.write_text('sid_next: {prompt: ["{history_sids}"], response: ["{target_sid}"]}')
    cache = str(tmp_path / "cache")
    changes: list[dict[str, Any]] = [
        {"template": {"file": str(template)}},
        {"encoding": {"cutoff_len": 100, "cache_dir": cache}},
        {"data": {"sample": 5}},
        {"seed": 9},
        {"tasks": {"sid_next": None, "fusion": {"target": "description"}}},
    ]
    for change in changes:
        assert entries(tiny_config(tmp_path, **{**one, **change})) - before, change
    config = tiny_config(tmp_path, **one)
    lines = config.data.train.read_text().splitlines()
    config.data.train.write_text("\n".join(lines[:-1]) + "\n")
    assert not entries(config) & before
    assert entries(tiny_config(tmp_path, **one, training={"epochs": 9})) == before


def test_the_manifest_says_what_it_was_made_from(tmp_path: Path) -> None:
    folder = store(tmp_path, [], {"seed": 5}).folder
    assert json.loads((folder / "manifest.json").read_text())["fingerprint"] == {"seed": 5}
