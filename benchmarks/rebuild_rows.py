"""Rebuild the training rows of Industrial and Scientific from its validation and test rows.

    python benchmarks/rebuild_rows.py FOLDER

FOLDER holds MiniOneRec's `valid.csv` and `test.csv` (AkaliKong/MiniOneRec on GitHub). The histories
of a user's earliest row lie in the training period, so each of its items but the first is the
target of a training row. Writes `train.csv` into the same folder: 10,393 rows, 29% of MiniOneRec's
own, which is not needed then. A `train.csv` that is there is not overwritten.
"""

from __future__ import annotations

import ast
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

LISTS = {"history_item_title": "item_title", "history_item_id": "item_id"}
LISTS["history_item_sid"] = "item_sid"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rebuilt(rows: list[dict[str, str]]) -> Iterator[dict[str, object]]:
    """Training rows from held-out rows in order of time: of each user the first row counts."""
    first: dict[str, dict[str, str]] = {}
    for row in rows:
        first.setdefault(row["user_id"], row)
    for row in first.values():
        lists = {name: ast.literal_eval(row[name]) for name in LISTS}
        for end in range(1, len(lists["history_item_id"])):
            histories = {name: items[:end] for name, items in lists.items()}
            targets = {LISTS[name]: items[end] for name, items in lists.items()}
            yield {"user_id": row["user_id"], **histories, **targets}


def main() -> None:
    folder = Path(sys.argv[1])
    rows = [*rebuilt([*read(folder / "valid.csv"), *read(folder / "test.csv")])]
    with (folder / "valid.csv").open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    with (folder / "train.csv").open("x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows):,} rows: {folder / 'train.csv'}")


if __name__ == "__main__":
    main()
