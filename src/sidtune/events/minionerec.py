"""Prepared rows in the layout of MiniOneRec: CSV with lists as Python literals, `.item.json` and
`info.txt`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from sidtune.base.errors import UserError
from sidtune.base.storage import new_folder
from sidtune.config.events import HISTORY_OF_ROWS
from sidtune.data.catalogue import read_catalogue
from sidtune.events.catalogue import ID, TITLE
from sidtune.events.prepare import CATALOGUE
from sidtune.events.rows import INTERACTIONS
from sidtune.events.splits import SPLITS

ROWS_AT_ONCE = 8_192
Row = tuple[str, list[str], str]


def write_minionerec(prepared: Path, folder: Path, index: Path | None) -> None:
    """Write `train.csv`, `valid.csv`, `test.csv`, `shop.item.json` and `info.txt` into a new
    folder, all or nothing.

    Args:
        prepared: a folder that `prepare` made.
        index: an `.index.json`; without it the columns of SIDs are left out.

    Raises:
        UserError: where the folder exists, the catalogue has no titles, or items have no SID.
    """
    if folder.exists():
        raise UserError(f"{folder} exists", "Choose another folder for --minionerec, or remove it.")
    table = pyarrow.parquet.read_table(prepared / CATALOGUE)
    if TITLE not in table.column_names:
        raise UserError("MiniOneRec's files need titles", "Name the catalogue by catalogue.file.")
    items = {row.pop(ID): row for row in table.to_pylist()}
    sids = _sids(index, items) if index else None
    with new_folder(folder) as aside:
        _write(prepared, aside, items, sids)


def _write(
    prepared: Path,
    folder: Path,
    items: Mapping[str, dict[str, Any]],
    sids: Mapping[str, str] | None,
) -> None:
    for split in SPLITS:
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["user_id", "history_item_title", "item_title", "history_item_id", "item_id"]
                + (["history_item_sid", "item_sid"] if sids else [])
            )
            for user, history, target in _rows(prepared, split):
                titles = [items[item][TITLE] for item in history]
                tokens = [[sids[item] for item in history], sids[target]] if sids else []
                writer.writerow(
                    [
                        user,
                        titles,
                        items[target][TITLE],
                        list(map(_literal, history)),
                        target,
                        *tokens,
                    ]
                )
    with (folder / "shop.item.json").open("w", encoding="utf-8") as file:
        json.dump(items, file, ensure_ascii=False)
    with (folder / "info.txt").open("w", encoding="utf-8") as file:
        for item, record in items.items():
            fields = [*([sids[item]] if sids else []), " ".join(record[TITLE].split()), item]
            file.write("\t".join(fields) + "\n")


def _literal(item: str) -> str | int:
    """An id as written in a list: whole numbers without quotes."""
    return int(item) if item.isdecimal() and len(item) < 19 and str(int(item)) == item else item


def _sids(index: Path, items: Mapping[str, Any]) -> dict[str, str]:
    known, names = read_catalogue(None, index), list(items)
    places = known.find(names)
    missing = np.flatnonzero(places < 0)
    if len(missing):
        raise UserError(
            f"{index}: {len(missing):,} items have no SID, the first is {names[missing[0]]}",
            "Make SIDs for all.",
        )
    return {item: "".join(known.sids[place]) for item, place in zip(names, places, strict=True)}


def _rows(prepared: Path, split: str) -> Iterator[Row]:
    whole = prepared / INTERACTIONS
    with pyarrow.parquet.ParquetFile(
        whole if whole.exists() else prepared / f"{split}.parquet"
    ) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            columns = batch.to_pydict()
            if whole.exists():
                for user, items in zip(columns["user_id"], columns["items"], strict=True):
                    yield from _of_sequence(user, items, split)
            else:
                yield from zip(
                    columns["user_id"], columns["history"], columns["item_id"], strict=True
                )


def _of_sequence(user: str, items: list[str], split: str) -> Iterator[Row]:
    """As `data/leave_one_out.py` splits a user: the last item is the test target, the one before it
    validation's.
    """
    held_out = 2 if len(items) >= 3 else 0
    ends = range(1, len(items) - held_out) if split == "train" else []
    if held_out and split != "train":
        ends = [len(items) - (2 if split == "valid" else 1)]
    for end in ends:
        yield user, items[max(0, end - HISTORY_OF_ROWS) : end], items[end]
