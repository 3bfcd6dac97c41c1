"""Streams, tables and checkpoints that never end, or say far more than they hold: refused at once,
in little memory.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from tests.fuzz.readers import SHOP, evaluation, json_bytes, model_folder, trainer_folder
from tests.fuzz.survival import outcome
from tests.tiny_data import read_rows
from tests.tiny_models import make_base

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.config.section import MOST
from sidtune.data.rows import load_rows
from sidtune.decoding.answers import read_candidates
from sidtune.decoding.stream import histories
from sidtune.evaluation.compare import read_evaluated
from sidtune.files.text import LONGEST_RECORD
from sidtune.files.weight_files import INDEX, WEIGHTS, load_weights
from sidtune.model.checkpoint_files import SID_ROWS, load_start
from sidtune.model.load import load_model
from sidtune.runs.bundle import CATALOGUE, RECOMMENDER_FILE, read_bundle
from sidtune.runs.checkpoints import (
    IDENTITY,
    LONGEST_JSON,
    MANIFEST,
    damage,
    newest_complete,
    read_identity,
)
from sidtune.runs.resumed import STATE, refuse_broken_state
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import extend_vocabulary

MB = 1_000_000
PREDICTIONS = "test.predictions.parquet"


def refused(read: Callable[[], Any], folder: Path, message: str, megabytes: int = 150) -> None:
    """In a process of its own, which neither waits nor grows."""

    def reading(*_: Any) -> None:
        with pytest.raises(UserError, match=message):
            read()

    found = outcome(reading, [0], folder)
    assert not found.faults, found.faults
    assert found.megabytes < megabytes


def asked(source: Path) -> list[Any]:
    nobody: Any = None
    return list(histories(nobody, None, source))


# --- lines ---


def test_a_line_of_a_packed_file_without_measure(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"history": ["' + b"x" * 100 * MB, 1))
    refused(
        lambda: asked(path),
        tmp_path,
        "the decompressed size exceeds 200 times|the record exceeds 16,777,216 bytes",
    )


@pytest.mark.parametrize("read", [asked, read_rows, lambda path: load_rows(path, SHOP)])
def test_a_line_is_never_held_whole(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "h.jsonl"
    with path.open("wb") as file:
        file.truncate(LONGEST_RECORD * 20)  # zeros that take no room
    refused(lambda: read(path), tmp_path, "line 1: the record exceeds 16,777,216 bytes")


def test_a_header_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    with path.open("wb") as file:
        file.truncate(LONGEST_RECORD * 20)
    refused(lambda: read_rows(path), tmp_path, "the header")


def endless() -> Any:
    return io.TextIOWrapper(Path("/dev/zero").open("rb"))


def given(text: bytes) -> Callable[[], Any]:
    return lambda: io.TextIOWrapper(io.BytesIO(text))


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (endless, "standard input, line 1: the record exceeds 16,777,216 bytes"),
        (given(b'{"history": [1]}\n\xff\n'), "standard input: not UTF-8: byte 0xff in line 2"),
    ],
)
def test_standard_input_made_to_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdin: Callable[[], Any], message: str
) -> None:
    def read() -> None:
        monkeypatch.setattr(
            sys, "stdin", stdin()
        )  # in the process that reads, which begins without any
        asked(Path("-"))

    refused(read, tmp_path, message)


def test_standard_input_with_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    line = '{"user_id": "ü", "history": [1]}\n'
    monkeypatch.setattr(sys, "stdin", given(b"\xef\xbb\xbf" + (line * 2).encode())())
    assert asked(Path("-")) == [("ü", ["1"])] * 2


@pytest.mark.parametrize("user", ["[" * 700 + "]" * 700, "{}", "true", "1.5"])
def test_a_user_is_text_or_a_whole_number(tmp_path: Path, user: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(f'{{"user_id": {user}, "history": [1]}}\n')
    with pytest.raises(UserError, match=r"line 1: user_id: expected text or a whole number"):
        asked(path)


def test_users_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(
        "".join(f'{{"user_id": {user}, "history": []}}\n' for user in ("null", '"u"', 7))
    )
    assert [user for user, _ in asked(path)] == [None, "u", 7]


# --- files that are no regular files ---


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("become", [pipe, device])
@pytest.mark.parametrize(
    "name", ["h.jsonl", "c.txt", "r.parquet", PREDICTIONS, CATALOGUE, RECOMMENDER_FILE]
)
def test_pipes_and_devices_are_not_read(
    tmp_path: Path, name: str, become: Callable[[Path], None]
) -> None:
    model_folder(tmp_path)
    evaluation(tmp_path)
    become(tmp_path / name)
    readers: dict[str, Callable[[], Any]] = {
        "h.jsonl": lambda: asked(tmp_path / name),
        "c.txt": lambda: read_candidates(tmp_path / name),
        "r.parquet": lambda: read_rows(tmp_path / name),
        PREDICTIONS: lambda: read_evaluated(tmp_path, "test"),
    }
    read = readers.get(name, lambda: read_bundle(tmp_path))
    refused(read, tmp_path, "is a pipe or a device|has no sid_")


@pytest.mark.parametrize("become", [pipe, device])
@pytest.mark.parametrize("name", [MANIFEST, "weights", IDENTITY, "optimizer.pt"])
def test_a_checkpoint_of_pipes_and_devices(
    tmp_path: Path, name: str, become: Callable[[Path], None]
) -> None:
    checkpoint = trainer_folder(tmp_path)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    if name in manifest:
        manifest[name]["bytes"] = 0
        (checkpoint / MANIFEST).write_bytes(json_bytes(manifest))
    become(checkpoint / name)

    def passed_over(*_: Any) -> None:
        newest, skipped = newest_complete(tmp_path)
        assert newest is None
        assert "cannot be read" in skipped[0].reason

    found = outcome(passed_over, [0], tmp_path)
    assert not found.faults, found.faults
    if name == IDENTITY:
        refused(lambda: read_identity(checkpoint), tmp_path, "cannot be read")


@pytest.mark.parametrize("become", [pipe, device])
def test_a_state_that_is_no_file(tmp_path: Path, become: Callable[[Path], None]) -> None:
    become(tmp_path / STATE)
    refused(
        lambda: refuse_broken_state(tmp_path), tmp_path, "cannot be read: it is not a regular file"
    )


def test_a_manifest_that_is_too_large_to_be_one(tmp_path: Path) -> None:
    checkpoint = trainer_folder(tmp_path)
    assert damage(checkpoint) is None
    manifest = (checkpoint / MANIFEST).read_text()
    (checkpoint / MANIFEST).write_text(manifest + " " * LONGEST_JSON)
    assert damage(checkpoint) == f"{MANIFEST} cannot be read"


@pytest.mark.parametrize("become", [pipe, device])
def test_a_part_of_the_weights_that_is_no_file(
    tmp_path: Path, become: Callable[[Path], None]
) -> None:
    become(tmp_path / "part.safetensors")
    (tmp_path / INDEX).write_bytes(json_bytes({"weight_map": {"a": "part.safetensors"}}))
    refused(lambda: load_weights(tmp_path), tmp_path, "lists 'part.safetensors', which is missing")


# --- tables ---

LONG = "x" * 100_000


@pytest.mark.parametrize("name", ["user_id", "item_id", "history"])
def test_a_text_that_stands_in_every_row(tmp_path: Path, name: str) -> None:
    rows = 1_000
    columns: dict[str, Any] = {
        "user_id": pa.array(["u"] * rows),
        "history": pa.array([["1"]] * rows),
        "item_id": pa.array(["1"] * rows),
    }
    many = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [LONG])
    if name == "history":
        offsets = pa.array(range(rows + 1), pa.int32())
        columns[name] = pa.ListArray.from_arrays(offsets, many.dictionary_decode())
    else:
        columns[name] = many
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "r.parquet", store_schema=False)
    assert (tmp_path / "r.parquet").stat().st_size < 20_000
    # Lists are there before they are measured, some thousand rows of them.
    most = 400 if name == "history" else 60
    refused(
        lambda: read_rows(tmp_path / "r.parquet"),
        tmp_path,
        "the decompressed size exceeds 200 times",
        most,
    )


def test_predictions_and_items_that_repeat_a_text(tmp_path: Path) -> None:
    model_folder(tmp_path)
    evaluation(tmp_path)
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000, pa.int32()), [LONG])
    for name, column in ((PREDICTIONS, "user_id"), (CATALOGUE, "title")):
        pyarrow.parquet.write_table(pa.table({column: many}), tmp_path / name, store_schema=False)
    refused(
        lambda: read_evaluated(tmp_path, "test"),
        tmp_path,
        "the decompressed size exceeds 200 times",
        60,
    )
    refused(lambda: read_bundle(tmp_path), tmp_path, "the decompressed size exceeds 200 times", 60)


def test_repeated_texts_of_ordinary_length_are_read(tmp_path: Path) -> None:
    """Over several row groups, from dictionaries that differ, and with texts that stand in none."""
    rows = [
        (f"user {number // 50}", [str(number % 3)] * (number % 5 + 1), "ü")
        for number in range(9_000)
    ]
    users, history, targets = (list(column) for column in zip(*rows, strict=True))
    table = pa.table({"user_id": users, "history": history, "item_id": targets})
    pyarrow.parquet.write_table(
        table,
        tmp_path / "r.parquet",
        row_group_size=2_500,
        dictionary_pagesize_limit=300,
        data_page_size=100,
    )
    found = read_rows(tmp_path / "r.parquet")
    assert found["user_id"].to_pylist() == users
    assert found["history"].to_pylist() == history
    assert found["target"].to_pylist() == targets


def test_an_evaluation_without_rows_is_one(tmp_path: Path) -> None:
    evaluation(tmp_path)
    pyarrow.parquet.write_table(
        pyarrow.parquet.read_table(tmp_path / PREDICTIONS).slice(0, 0), tmp_path / PREDICTIONS
    )
    assert read_evaluated(tmp_path, "test").table.num_rows == 0


@pytest.mark.parametrize(
    ("ranks", "beams", "message"),
    [
        (
            [1, 2, 2**63 - 1],
            10,
            "column sid_rank: a rank is 9223372036854775807, beyond the length of lists of 10",
        ),
        ([1, 2, 11], 10, "column sid_rank: a rank is 11, beyond the length of lists of 10"),
        ([1, 2, 2**63 - 1], 2**63, "settings.beams: expected a number from 1 to 2,147,483,647"),
        ([0, 0, 0], 10**400, "settings.beams: expected a number from 1 to 2,147,483,647"),
    ],
)
def test_ranks_behind_the_end(tmp_path: Path, ranks: list[int], beams: int, message: str) -> None:
    evaluation(tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / PREDICTIONS)
    at = table.column_names.index("sid_rank")
    pyarrow.parquet.write_table(
        table.set_column(at, "sid_rank", pa.array(ranks)), tmp_path / PREDICTIONS
    )
    (tmp_path / "test.json").write_bytes(json_bytes({"settings": {"beams": beams}}))
    with pytest.raises(UserError, match=message):
        read_evaluated(tmp_path, "test")
    assert MOST < 2**31


# --- beside a model ---


@pytest.mark.parametrize("length", [2**31, 2**63, 10**400])
def test_a_length_that_nothing_counts_with(tmp_path: Path, length: int) -> None:
    model_folder(tmp_path)
    question = json.loads((tmp_path / RECOMMENDER_FILE).read_text())
    (tmp_path / RECOMMENDER_FILE).write_bytes(json_bytes(question | {"cutoff_len": length}))
    with pytest.raises(UserError, match="cutoff_len: expected"):
        read_bundle(tmp_path)


def test_sid_rows_of_another_shape(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), ["<a_1>", "<a_2>"])
    model = load_model(ModelConfig(base=str(base)), vocabulary, 0)
    ids = torch.from_numpy(vocabulary.sid_ids)
    start = tmp_path / "start"
    start.mkdir()
    # Of the model itself, so that the rows alone are wrong.
    weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(weights, start / WEIGHTS)
    wide = model.get_input_embeddings().weight.shape[1]
    for rows in (
        {"evil": torch.zeros(2, wide)},
        {"input": torch.zeros(2, wide), "evil": torch.zeros(2, wide)},
        {"input": torch.zeros(2, 5)},
        {"input": torch.zeros(3, wide)},
        {"input": torch.tensor(1.0)},
    ):
        safetensors.torch.save_file(rows, start / SID_ROWS)
        with pytest.raises(
            UserError, match=r"saved SID rows do not match the model: .*, expected {'input': \(2,"
        ):
            load_start(model, start, ids)
