"""SIDs by co-occurrence without a file of items: the items are those of the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsRun
from sidtune.sids.fit import index_file, make
from sidtune.sids.index import read_index

# Two kinds of users, whose items stand in pairs; row files write ids as they like.
TRAIN = [("u", ["1", "2"], "3"), ("v", ["4", "5"], "6.0"), ("w", ["2", "3"], "1")]
VALID = [("u", ["1", "2", "3"], "7"), ("v", ["4.0", "5"], "6")]
TEST = [("v", ["4", "5", "6"], "item 8")]
ITEMS = ["1", "2", "3", "4", "5", "6", "7", "item 8"]


def as_csv(path: Path, rows: list[Any]) -> Path:
    lines = [f'{user},"{history}",{item}\n' for user, history, item in rows]
    path.with_suffix(".csv").write_text("user_id,history,item_id\n" + "".join(lines))
    return path.with_suffix(".csv")


def as_parquet(path: Path, rows: list[Any]) -> Path:
    columns = zip(("user_id", "history", "item_id"), zip(*rows, strict=True), strict=True)
    table = pa.table({name: pa.array(values) for name, values in columns})
    pyarrow.parquet.write_table(table, path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_jsonl(path: Path, rows: list[Any]) -> Path:
    named = [dict(zip(("user_id", "history", "item_id"), row, strict=True)) for row in rows]
    path.with_suffix(".jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in named))
    return path.with_suffix(".jsonl")


def run(folder: Path, data: dict[str, Path], **sids: Any) -> SidsRun:
    sids = {"vectors": "co_occurrence", "levels": [2, 8]} | sids
    tree = {"output_dir": folder / "run", "data": data, "sids": sids}
    return SidsRun.model_validate(tree)


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_jsonl])
def test_every_item_of_the_rows_has_a_sid_and_training_rows_alone_say_which(
    tmp_path: Path, write: Any
) -> None:
    splits = {"train": TRAIN, "valid": VALID, "test": TEST}
    data = {name: write(tmp_path / name, rows) for name, rows in splits.items()}
    fitted = read_index(make(run(tmp_path, data)).folder)
    assert fitted.ids == ITEMS
    assert len(set(map(tuple, fitted.sids))) == len(ITEMS)
    vectors = dict(zip(fitted.ids, fitted.vectors, strict=True))
    assert not vectors["7"].any(), "no training row has it"
    assert not vectors["item 8"].any()
    alike = np.array([[float(vectors[a] @ vectors[b]) for b in "123456"] for a in "123456"])
    assert alike[:3, :3].min() > 0.1 > abs(alike[:3, 3:]).max()
    # The same as with a file that lists the items, without texts.
    nameless = tmp_path / "nameless.item.json"
    nameless.write_text(json.dumps({item: {"title": ""} for item in ITEMS}))
    listed = read_index(make(run(tmp_path, data | {"items": nameless})).folder)
    assert (fitted.ids, fitted.sids) == (listed.ids, listed.sids)


def test_whole_histories_name_the_items_too(tmp_path: Path) -> None:
    histories = {"u": [2, 1, 3, 9], "v": ["2", "3", "1.0"], "w": ["only"]}
    (tmp_path / "shop.inter.json").write_text(json.dumps(histories))
    asked = run(tmp_path, {"interactions": tmp_path / "shop.inter.json"})
    assert read_index(make(asked).folder).ids == ["1", "2", "3", "9", "only"]


def test_an_index_follows_from_all_of_its_rows(tmp_path: Path) -> None:
    data = {"train": as_csv(tmp_path / "train", TRAIN), "valid": as_csv(tmp_path / "valid", VALID)}
    before = index_file(run(tmp_path, data))
    as_csv(tmp_path / "valid", VALID[:1])
    assert index_file(run(tmp_path, data)) != before
    assert index_file(run(tmp_path, {"train": data["train"]})) != before


@pytest.mark.parametrize("vectors", ["text", {"text": 1, "co_occurrence": 1}])
def test_texts_need_a_file_of_items(tmp_path: Path, vectors: Any) -> None:
    data = {"train": as_csv(tmp_path / "train", TRAIN)}
    with pytest.raises(UserError, match=r"neither data\.items nor sids\.catalogue") as refused:
        make(run(tmp_path, data, vectors=vectors))
    assert "co_occurrence alone needs neither" in refused.value.hint


@pytest.mark.parametrize("name", [None, "valid"])
def test_without_training_rows_there_are_no_items(tmp_path: Path, name: str | None) -> None:
    data = {name: as_csv(tmp_path / name, VALID)} if name else {}
    with pytest.raises(UserError, match="co_occurrence needs training rows"):
        make(run(tmp_path, data))
