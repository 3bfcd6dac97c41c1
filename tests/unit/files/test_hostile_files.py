"""Files made to harm, one kind each: refused in words, in no time, and with nothing run."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from tests.fuzz.readers import CONFIG, SHOP, evaluation, model_folder
from tests.fuzz.survival import outcome
from tests.tiny_data import read_rows

from sidtune.base.errors import LONGEST_MESSAGE, UserError, did_you_mean
from sidtune.data.catalogue import read_catalogue
from sidtune.data.instructions import read_instructions
from sidtune.data.leave_one_out import read_interactions
from sidtune.data.preferences import read_preferences
from sidtune.data.rows import load_rows
from sidtune.decoding.answers import read_candidates
from sidtune.decoding.stream import histories
from sidtune.evaluation.compare import read_evaluated
from sidtune.files.literals import parse_list
from sidtune.files.text import read_json, read_text
from sidtune.files.yaml_files import MOST_CHARACTERS, parse_yaml, read_yaml
from sidtune.runs.bundle import CATALOGUE, read_bundle
from sidtune.tasks.config_file import load_config
from sidtune.templates import load_templates

MB = 1_000_000


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def seconds(act: Callable[[], Any]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


# --- text ---


def test_a_list_of_backslashes_takes_no_time() -> None:
    def refused() -> None:
        with pytest.raises(ValueError, match="expected a"):
            parse_list("['" + "\\'" * 400_000 + "]")

    assert seconds(refused) < 2
    assert parse_list("['\\'[[[[', \"\\\\\"]") == ["'[[[[", "\\"]


def test_half_characters_in_a_list_are_refused() -> None:
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        parse_list("['\\ud800']")


def test_the_key_that_stands_twice_is_found_at_once(tmp_path: Path) -> None:
    keys = [f'"{number}": 0' for number in range(100_000)]
    path = write(tmp_path / "a.json", "{" + ",".join([*keys, '"99999": 1']) + "}")

    def refused() -> None:
        with pytest.raises(UserError, match="'99999' occurs twice"):
            read_json(path)

    assert seconds(refused) < 3


def test_a_packed_file_that_unpacks_without_measure(tmp_path: Path) -> None:
    bomb = write(tmp_path / "r.jsonl.gz", gzip.compress(b" " * 40 * MB + b"\n" + b'{"a": 1}'))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(UserError, match="the decompressed size exceeds 200 times"):
        read_rows(bomb)
    assert read_text(write(tmp_path / "a.gz", gzip.compress(b"a" * MB))) == "a" * MB, (
        "small enough to be harmless"
    )


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.csv")
    with pytest.raises(UserError, match="is a pipe or a device"):
        read_rows(tmp_path / "r.csv")


def test_a_path_that_no_file_system_takes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        read_text(tmp_path / ("x" * 300))


def test_messages_stay_short_whatever_a_file_holds(tmp_path: Path) -> None:
    header = write(
        tmp_path / "r.csv",
        "user_id," + ",".join(f"c{number}" for number in range(300_000)) + "\n1,2\n",
    )

    def refused() -> None:
        with pytest.raises(UserError, match="no column 'history'") as error:
            read_rows(header)
        assert len(str(error.value)) < LONGEST_MESSAGE + 300

    assert seconds(refused) < 5
    assert did_you_mean("histroy", ["history"]) == "; did you mean history?"


# --- rows ---


@pytest.mark.parametrize("cell", [{"a": 1}, [1], True])
@pytest.mark.parametrize("name", ["user_id", "item_id"])
def test_an_id_in_json_is_text_or_a_number(tmp_path: Path, name: str, cell: Any) -> None:
    record = {"user_id": "u", "history": [1], "item_id": 2} | {name: cell}
    with pytest.raises(UserError, match=f"row 1, column {name}: expected an id"):
        read_rows(write(tmp_path / "r.jsonl", json.dumps(record) + "\n"))


def test_a_header_is_read_as_csv(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "r.csv", '"a,b",user_id,history,"item_id"\n0,u,[1],2\n'))
    assert rows.to_pylist() == [{"user_id": "u", "history": ["1"], "target": "2"}]
    with pytest.raises(UserError, match="the column 'user_id' occurs twice"):
        read_rows(write(tmp_path / "s.csv", "user_id,user_id,history,item_id\nu,v,[1],2\n"))


def bad_text(rows: int) -> pa.Array:
    return pa.array([b"\xff"] * rows, pa.binary()).view(pa.string())


def test_parquet_whose_text_is_not_utf8(tmp_path: Path) -> None:
    table = pa.table({"user_id": bad_text(1), "history": [["1"]], "item_id": ["2"]})
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_rows(tmp_path / "r.parquet")
    model_folder(tmp_path)
    catalogue = pyarrow.parquet.read_table(tmp_path / CATALOGUE)
    harmed = catalogue.set_column(1, "title", bad_text(catalogue.num_rows))
    pyarrow.parquet.write_table(harmed, tmp_path / CATALOGUE)
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_bundle(tmp_path)


def test_a_folder_named_like_a_partition_is_a_folder(tmp_path: Path) -> None:
    """Arrow's reader of data sets takes `lr=0.1` in a path for a column."""
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    model_folder(folder)
    evaluation(folder)
    assert read_bundle(folder).catalogue.ids == SHOP.ids
    assert read_evaluated(folder, "test").table.num_rows == 3


@pytest.mark.parametrize(("name", "value"), [("sid_rank", -1), ("item_rank", -(2**63))])
def test_ranks_below_zero(tmp_path: Path, name: str, value: int) -> None:
    evaluation(tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "test.predictions.parquet")
    at = table.column_names.index(name)
    pyarrow.parquet.write_table(
        table.set_column(at, name, pa.array([value] * 3)), tmp_path / "test.predictions.parquet"
    )
    with pytest.raises(UserError, match="a rank is below 0"):
        read_evaluated(tmp_path, "test")


def test_a_candidate_may_hold_any_character_but_line_breaks(tmp_path: Path) -> None:
    assert read_candidates(write(tmp_path / "c.txt", "a\u2028b\r\n c\x85d \n")) == [
        "a\u2028b",
        "c\x85d",
    ]


# --- YAML ---

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "aliases expand to more than"),
        (MERGES, "aliases expand to more than"),
        ("a: &a [*a]", "aliases expand to more than"),
        ("a: &a {b: *a, c: *a}", "aliases expand to more than"),
        (
            "a: !!python/object/apply:os.system ['touch canary']",
            "not valid YAML: could not determine a constructor",
        ),
        ("a: !!python/name:os.system", "not valid YAML: could not determine a constructor"),
        ("a: !anything x", "not valid YAML: could not determine a constructor"),
        ("a: 2001-99-99", "a value does not fit its type: month must be"),
        ("a: !!int x", "a value does not fit its type"),
        ("a: !!bool x", "a value does not fit its type"),
        ("a: !!timestamp x", "a value does not fit its type"),
        ("a: !!int " + "7" * 5000, "a value does not fit its type"),
        ("a: 1" + ":1" * 5000 + ".5", "a value does not fit its type"),
        ("true: 1\nyes: 2", "the key 'yes' occurs twice in one mapping, again in line 2"),
        ("a: {1: 1, 0x1: 2}", "the key '0x1' occurs twice"),
        ("a: 1\nb: 2\na: 3", "the key 'a' occurs twice in one mapping, again in line 3"),
        ("a: {b: 1, b: 1}", "the key 'b' occurs twice"),
        ("a: \x00", "special characters are not allowed"),
        ("a: " + "[" * 50_000, "not valid YAML: values are nested more than 100 levels deep"),
        ("- " * 50_000, "not valid YAML: values are nested more than 100 levels deep"),
        ("a: " + "x" * MOST_CHARACTERS, "characters, more than the maximum of"),
        ("{[1]: 2}", "not valid YAML"),
    ],
)
def test_yaml_made_to_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "c.yaml", text)

    def refused(read: Callable[[Path], Any]) -> None:
        with pytest.raises(UserError, match=message):
            read(path)

    for read in (read_yaml, load_config, load_templates):
        assert seconds(partial(refused, read)) < 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.yaml"]


def test_yaml_that_only_uses_its_means() -> None:
    text = "a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n"
    assert parse_yaml(text, "here") == yaml.safe_load(text)
    assert parse_yaml("", "here") is None
    assert parse_yaml("yes: 1\n'yes': 2\n3: 4\n'3': 5", "here") == {True: 1, "yes": 2, 3: 4, "3": 5}


def test_an_override_is_text_where_it_is_no_yaml(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", CONFIG)
    assert load_config(path, ["model.base=2001-99-99"]).model.base == "2001-99-99"
    with pytest.raises(UserError, match=r"seed: .*less than 4294967296, found 0xfff"):
        load_config(path, ["seed=0x" + "f" * 5000])


@pytest.mark.parametrize("name", ["output_dir", "data.index", "model.base", "encoding.cache_dir"])
def test_a_path_with_a_nul(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "c.yaml", CONFIG)
    with pytest.raises(
        UserError, match=f"{name}: contains a character that is not allowed in a path"
    ):
        load_config(path, [f'{name}="a\\0b"'])


def test_a_form_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown template name 7"):
        load_templates(write(tmp_path / "t.yaml", "7: {prompt: [a], response: [b]}"))


# --- long lines and deep nesting ---


def long_files(folder: Path, size: int) -> dict[str, Callable[[], Any]]:
    """Files of one long line, and their readers."""
    text = "x" * size
    nobody: Any = None
    quoted = f'"{text}"'
    named = {
        "index": write(folder / "x.json", '{"1": ["' + text + '"]}'),
        "items": write(folder / "i.json", '{"1": {"title": "' + text + '"}}'),
        "csv": write(folder / "r.csv", f"user_id,history,item_id\nu,[1],{quoted}\n"),
        "cell": write(folder / "c.csv", f"user_id,history,item_id\nu,\"['{text}']\",1\n"),
        "header": write(folder / "h.csv", f"{text}\nu\n"),
        "jsonl": write(
            folder / "r.jsonl", '{"user_id": "u", "history": [1], "item_id": ' + quoted + "}\n"
        ),
        "list": write(
            folder / "l.jsonl",
            '{"user_id": "u", "history": [' + "1," * (size // 2) + '1], "item_id": 1}\n',
        ),
        "inter": write(folder / "s.inter.json", '{"u": [' + quoted + "]}"),
        "preferences": write(folder / "p.json", "[" + quoted + "]"),
        "instructions": write(folder / "i.jsonl", '{"prompt": "a", "response": ' + quoted + "}\n"),
        "candidates": write(folder / "c.txt", text),
        "yaml": write(folder / "c.yaml", "a: " + text),
        "nested": write(folder / "n.json", "[" * size),
        "objects": write(folder / "o.json", '{"a":' * (size // 5)),
    }
    return {
        "index": lambda: read_catalogue(None, named["index"]),
        "items": lambda: read_catalogue(named["items"], write(folder / "y.json", '{"1": ["<a>"]}')),
        **{
            name: lambda name=name: load_rows(named[name], SHOP)
            for name in ("csv", "cell", "header", "jsonl", "list")
        },
        "inter": lambda: read_interactions(named["inter"], SHOP),
        "preferences": lambda: read_preferences(named["preferences"]),
        "instructions": lambda: read_instructions(named["instructions"]),
        "candidates": lambda: read_candidates(named["candidates"]),
        "histories": lambda: list(histories(nobody, None, named["jsonl"])),
        "yaml": lambda: read_yaml(named["yaml"]),
        **{name: lambda name=name: read_json(named[name]) for name in ("nested", "objects")},
    }


def test_a_record_that_no_model_reads(tmp_path: Path) -> None:
    for read in (read_rows, read_instructions, lambda path: list(histories(None, None, path))):  # type: ignore[arg-type]
        with pytest.raises(UserError, match="line 1: the record exceeds 16,777,216 bytes"):
            read(write(tmp_path / "r.jsonl", '{"history": [' + " " * 20 * MB + "]}\n"))  # type: ignore[operator]


def read_long(folder: Path, size: int) -> tuple[float, float]:
    """Each in a process of its own; the most seconds and megabytes that one took."""
    took = []
    for name, read in long_files(folder, size).items():
        found = outcome(lambda seed, folder: read(), [0], folder)  # noqa: B023
        assert not found.faults, f"{name}: {found.faults}"
        took.append((found.seconds, found.megabytes))
    return max(seconds for seconds, _ in took), max(megabytes for _, megabytes in took)


def test_a_long_line(tmp_path: Path) -> None:
    read_long(tmp_path, 5 * MB)


@pytest.mark.long
def test_a_line_of_a_hundred_megabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    most, megabytes = read_long(tmp_path, 100 * MB)
    with capsys.disabled():
        print(
            f"\na line of 100 MB before each reader of text: at most {most:.1f} s and"
            f" {megabytes:.0f} MB"
        )
