"""The cache of encoded examples: found again, rebuilt when damaged, never trusted when half-written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_data import tiny_config

from sidtune.config import Config
from sidtune.encoding.build import Mixture, load_catalogue
from sidtune.encoding.corpus import Corpus, EncodedTask, cached_task
from sidtune.encoding.encoder import Encoded
from sidtune.model.tokenizer import load_tokenizer
from sidtune.model.vocabulary import extend_vocabulary
from sidtune.ragged import Ragged

CHUNKS = [([[1, 2, 3], [4, 5]], [[1, 3], [1, 2]]), ([[6, 7, 8, 9]], [[1, 2, 3, 4]])]


def chunks() -> Iterator[Encoded]:
    for ids, spans in CHUNKS:
        yield Encoded(Ragged.from_lists(ids), Ragged.from_lists(spans), np.arange(len(ids)), np.arange(len(ids)), 1, 2)


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
