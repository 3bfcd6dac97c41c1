"""Rows read a batch at a time: the same rows, and faults in a later batch named by their row in the
file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.tiny_data import TITLES, read_rows, write_shop

from sidtune.base.errors import UserError
from sidtune.data.catalogue import Catalogue, read_catalogue
from sidtune.data.disagreements import disagreements
from sidtune.data.rows import load_rows
from sidtune.files import row_files
from sidtune.files.row_files import row_batches

KINDS = ("r.csv", "r.csv.gz", "r.parquet", "r.parquet.gz", "r.jsonl", "r.jsonl.gz")
ROWS = [
    (f"u{i // 3}", [str((i + k) % 8) for k in range(1 + i % 4)], str(i * 5 % 8)) for i in range(11)
]
Row = tuple[str, Sequence[str], str]


@pytest.fixture
def shop(tmp_path: Path) -> Catalogue:
    data = write_shop(tmp_path / "shop")
    return read_catalogue(Path(data["items"]), Path(data["index"]))


@pytest.fixture(autouse=True)
def three_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "ROWS_AT_ONCE", 3)


def write(path: Path, rows: Sequence[Row]) -> Path:
    """The rows in the form that the file's name says."""
    records = [
        {"user_id": user, "history": list(history), "item_id": target}
        for user, history, target in rows
    ]
    buffer: io.BytesIO = io.BytesIO()
    if ".parquet" in path.name:
        pyarrow.parquet.write_table(pa.Table.from_pylist(records), buffer)
    elif ".jsonl" in path.name:
        buffer.write("\n\n".join(json.dumps(record) for record in records).encode())
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["user_id", "history", "item_id"])
        writer.writeheader()
        writer.writerows(records)
        buffer.write(text.getvalue().encode())
    data = buffer.getvalue()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_batches_are_small_and_together_the_file(
    tmp_path: Path, shop: Catalogue, name: str
) -> None:
    path = write(tmp_path / name, ROWS)
    assert [batch.num_rows for batch in row_batches(path)] == [3, 3, 3, 2]
    assert read_rows(path).to_pylist() == [
        {"user_id": user, "history": list(history), "target": target}
        for user, history, target in ROWS
    ]
    rows = load_rows(path, shop)
    assert rows.users.to_pylist() == [user for user, _, _ in ROWS]
    assert [rows.history[i].tolist() for i in range(len(ROWS))] == [
        list(map(int, row[1])) for row in ROWS
    ]
    assert rows.target.tolist() == [int(row[2]) for row in ROWS]


def test_a_csv_of_several_blocks(
    tmp_path: Path, shop: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "BLOCK_BYTES", 64)
    path = write(tmp_path / "r.csv", ROWS * 5)
    assert load_rows(path, shop).target.tolist() == [int(row[2]) for row in ROWS * 5]
    with pytest.raises(
        UserError, match=r"row 24, column history: empty history \(1 rows in total\)"
    ):
        load_rows(write(path, [*ROWS * 2, ROWS[0], ("u", [], "1"), *ROWS]), shop)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (("", ["1"], "2"), r"row 5, column user_id: empty \(3 rows in total\)"),
        (("u", ["1"], ""), r"row 5, column item_id: empty \(3 rows in total\)"),
        (("u", [], "2"), r"row 5, column history: empty history \(3 rows in total\)"),
        (
            ("u", ["1", "99"], "nine"),
            r"3 rows contain items without a SID: 99, nine \(first in row 5\)",
        ),
    ],
)
def test_faults_are_counted_over_the_whole_file(
    tmp_path: Path, shop: Catalogue, name: str, bad: Row, message: str
) -> None:
    path = write(tmp_path / name, [*ROWS[:4], bad, *ROWS[:5], bad, bad, *ROWS])
    with pytest.raises(UserError, match=message):
        load_rows(path, shop)


def test_what_is_no_list_is_named_by_its_row(tmp_path: Path, shop: Catalogue) -> None:
    path = write(tmp_path / "r.csv", ROWS)
    lines = path.read_text().splitlines()
    lines[8] = "u,nonsense,1"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="row 8, column history: expected a list"):
        load_rows(path, shop)


def test_a_json_record_without_what_earlier_ones_have(tmp_path: Path, shop: Catalogue) -> None:
    records = [{"user_id": "u", "history": [1], "item_id": 2}] * 4 + [{"user_id": "u"}] * 4
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(
        UserError, match="row 5, column history: expected a list of item ids, found None"
    ):
        load_rows(path, shop)


def test_bytes_that_are_no_text_in_a_later_batch(tmp_path: Path, shop: Catalogue) -> None:
    for name in ("r.csv", "r.csv.gz", "r.jsonl"):
        path = write(tmp_path / name, ROWS)
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        end = data.rindex(b"u3")
        data = data[:end] + b"\xff" + data[end + 1 :]
        line = data[:end].count(b"\n") + 1
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        with pytest.raises(UserError, match=f"not UTF-8: byte 0xff in line {line}"):
            load_rows(path, shop)


def test_a_gzipped_file_that_ends_early(tmp_path: Path, shop: Catalogue) -> None:
    for name in ("r.csv.gz", "r.jsonl.gz"):
        path = write(tmp_path / name, ROWS)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(UserError, match="damaged gzip"):
            load_rows(path, shop)


def test_disagreements_are_named_by_their_row_in_the_file(tmp_path: Path) -> None:
    data = write_shop(tmp_path)
    shop, path = read_catalogue(Path(data["items"]), Path(data["index"])), Path(data["train"])
    lines = path.read_text().splitlines()
    for row in (2, 8, 20):
        lines[row] = lines[row].replace(TITLES[0], "another").replace("<b_", "<z_")
    path.write_text("\n".join(lines) + "\n")
    found = list(disagreements(path, shop))
    assert {entry.row for entry in found} == {2, 8, 20}
    assert [entry.row for entry in found] == sorted(entry.row for entry in found)


def test_lists_that_are_written_otherwise_agree(tmp_path: Path) -> None:
    data = write_shop(tmp_path)
    shop, path = read_catalogue(Path(data["items"]), Path(data["index"])), Path(data["train"])
    path.write_text(path.read_text().replace("', '", "',   '"))
    assert "',   '" in path.read_text()
    assert list(disagreements(path, shop)) == []


def test_an_empty_item_id_in_a_history_is_a_fault_of_its_row(
    tmp_path: Path, shop: Catalogue
) -> None:
    path = tmp_path / "r.parquet"
    histories = [history for _, history, _ in ROWS]
    histories[4], histories[9] = ["1", None], [""]  # type: ignore[list-item]
    users, targets = [user for user, _, _ in ROWS], [target for _, _, target in ROWS]
    pyarrow.parquet.write_table(
        pa.table({"user_id": users, "history": histories, "item_id": targets}), path
    )
    with pytest.raises(
        UserError, match=r"row 5, column history: empty item id \(2 rows in total\)"
    ):
        load_rows(path, shop)


def test_a_short_line_of_a_csv_is_counted_without_the_header(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user_id,history,item_id\nu0,['1'],2\nu1,['1']\n")
    with pytest.raises(UserError, match="row 2: Expected 3 columns, got 2"):
        list(row_batches(path))
