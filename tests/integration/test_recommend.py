"""`sidtune recommend`, and the same in Python, on a model trained in seconds."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from tests.asking import call, message, plainly_ranked
from tests.tiny_data import TITLES

import sidtune
from sidtune.base.errors import UserError
from sidtune.decoding.recommender import Recommender
from sidtune.tasks.config import Config


def test_recommend_one_history(config: Config) -> None:
    done = call("recommend", config.output_dir, "--history", "3, 1", "-k", 4, "--json")
    (line,) = done.stdout.splitlines()
    items = json.loads(line)["items"]
    right = plainly_ranked(config, ["3", "1"])[:4]
    assert [entry["item_id"] for entry in items] == [item for item, _ in right]
    assert [entry["score"] for entry in items] == pytest.approx(
        [score for _, score in right], abs=1e-4
    )
    assert [entry["title"] for entry in items] == [TITLES[int(item)] for item, _ in right]
    shown = call("recommend", config.output_dir, "--history", "3,1", "-k", 4).output
    for place, entry in enumerate(items, start=1):
        assert any(
            str(place) in row and entry["title"] in row and entry["sid"] in row
            for row in shown.splitlines()
        )


def test_recommend_many_lines(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More lines than are asked at once, some of them with items that nobody knows."""
    monkeypatch.setattr("sidtune.decoding.stream.LINES_AT_ONCE", 2)
    lines = [
        {"user_id": "a", "history": ["1"]},
        {"user_id": "b", "history": ["1", "nobody", 2]},
        {"history": ["none"]},
        {"history": []},
        {"user_id": 0, "history": ["5", "5"]},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    (tmp_path / "asked.jsonl").write_text(text)
    done = call(
        "recommend", config.output_dir, "--input", tmp_path / "asked.jsonl", "-k", 2, "--json"
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("user_id") for answer in answers] == ["a", "b", None, None, 0]
    assert [answer.get("unknown") for answer in answers] == [None, ["nobody"], ["none"], None, None]
    asked = [["1"], ["1", "2"], None, None, ["5", "5"]]
    for answer, history in zip(answers, asked, strict=True):
        expected = [item for item, _ in plainly_ranked(config, history)[:2]] if history else []
        assert [entry["item_id"] for entry in answer["items"]] == expected
    piped = call("recommend", config.output_dir, "--input", "-", "-k", 2, "--json", stdin=text)
    assert piped.output == done.output
    shown = call(
        "recommend", config.output_dir, "--input", tmp_path / "asked.jsonl", "-k", 2
    ).output
    said = f"b · after {TITLES[1]}; {TITLES[2]} · not in the catalogue: nobody"
    assert said in " ".join(shown.split())


def test_a_history_that_does_not_fit_does_not_stop_the_others(run: Path, tmp_path: Path) -> None:
    """A prompt that shows titles, and a catalogue with a very long one."""
    table = pyarrow.parquet.read_table(run / "sid_catalogue.parquet")
    titles = table["title"].to_pylist()
    titles[2] = "long " * 300
    pyarrow.parquet.write_table(
        table.set_column(1, table.schema.field(1), [titles]), run / "sid_catalogue.parquet"
    )
    question = json.loads((run / "sid_recommender.json").read_text())
    question["template"]["prompt"] = ["{history_titles}", "{history_sids}"]
    (run / "sid_recommender.json").write_text(json.dumps(question))
    text = '{"history": ["1"]}\n{"history": ["2"]}\n{"history": ["3"]}\n'
    done = call("recommend", run, "--input", "-", "-k", 2, "--json", stdin=text)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(answer["items"]) for answer in answers] == [2, 0, 2]
    assert [answer.get("fits") for answer in answers] == [None, False, None]
    assert (
        "the prompt of this history is too long"
        in call("recommend", run, "--input", "-", stdin=text).output
    )
    with pytest.raises(UserError, match="history 2: the prompt exceeds cutoff_len=200"):
        Recommender.load(run).recommend([["1"], ["2"]])


def test_files_of_any_kind_are_read(config: Config, tmp_path: Path) -> None:
    line = '{"user_id": "ü", "history": ["1"]}\n'
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode())
    with gzip.open(tmp_path / "packed.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(line)
    for name in ("bom.jsonl", "packed.jsonl.gz"):
        done = call("recommend", config.output_dir, "--input", tmp_path / name, "-k", 1, "--json")
        assert json.loads(done.stdout)["user_id"] == "ü"
    (tmp_path / "latin.jsonl").write_bytes(line.encode("latin-1"))
    assert "not UTF-8: byte 0x" in message(
        "recommend", config.output_dir, "--input", tmp_path / "latin.jsonl"
    )
    (tmp_path / "cut.jsonl.gz").write_bytes((tmp_path / "packed.jsonl.gz").read_bytes()[:-9])
    assert "damaged gzip file" in message(
        "recommend", config.output_dir, "--input", tmp_path / "cut.jsonl.gz"
    )


def test_recommend_in_python(config: Config) -> None:
    assert sidtune.Recommender is Recommender
    recommender = Recommender.load(config.output_dir)
    first, second = recommender.recommend([["1"], ["4", "2"]], k=3)
    assert [r.item_id for r in first] == [item for item, _ in plainly_ranked(config, ["1"])[:3]]
    assert isinstance(second[0], sidtune.Recommendation)
    assert recommender.recommend([]) == []
    assert recommender.recommend([[1]], k=3)[0][0].item_id == first[0].item_id  # type: ignore[list-item]
    with pytest.raises(UserError, match="history 1 is a string, not a list: '12'"):
        recommender.recommend(["12", "7"])
    with pytest.raises(UserError, match="history 2 is int, not a list: 7"):
        recommender.recommend([["1"], 7])  # type: ignore[list-item]
    with pytest.raises(UserError, match="candidates are a string, not a list: '12'"):
        recommender.among("12")
    array = np.array([["1"]])
    assert recommender.recommend(array, k=3) == recommender.recommend([["1"]], k=3)  # type: ignore[arg-type]
    for candidates in (["2", "4", "5"], np.array([2, 4, 5])):
        kept = recommender.among(candidates).recommend([["4", "2"]], k=3, exclude_history=True)
        assert [[r.item_id for r in row] for row in kept] == [["5"]]
    again = recommender.recommend([["1"]], k=3)[0]
    assert [r.item_id for r in again] == [r.item_id for r in first], (
        "the restriction made another recommender"
    )
    for normalize in ("full", "trie"):
        (row,) = recommender.recommend([["1"]], k=8, normalize=normalize)
        total = sum(math.exp(r.score) for r in row if r.item_id != "7")
        assert (total == pytest.approx(1, abs=1e-5)) == (normalize == "trie")


def test_steering_signs_in_titles_are_shown_not_obeyed(run: Path) -> None:
    table = pyarrow.parquet.read_table(run / "sid_catalogue.parquet")
    titles = ["\x1b[31mred[/bold]\nnext" for _ in range(table.num_rows)]
    changed = table.set_column(1, table.schema.field(1), [titles])
    pyarrow.parquet.write_table(changed, run / "sid_catalogue.parquet")
    shown = call("recommend", run, "--history", "1").output
    assert "\x1b" not in shown
    assert "\\x1b[31mred[/bold]↵" in shown


# --- mistakes ---


def test_a_catalogue_that_is_not_the_models(config: Config, run: Path) -> None:
    table = pyarrow.parquet.read_table(run / "sid_catalogue.parquet")
    sids = [["<z_1>", "<z_2>"]] * table.num_rows
    changed = table.set_column(2, table.schema.field(2), [sids])
    pyarrow.parquet.write_table(changed, run / "sid_catalogue.parquet")
    assert "does not know 2 of the catalogue's 2 SID tokens" in message(
        "recommend", run, "--history", "1"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --history or --input"),
        (["--history", "1", "--input", "x"], "give either --history or --input"),
        (["--history", "1,nobody"], "not in the catalogue: 'nobody'"),
        (["--history", "1,\udcff"], r"not in the catalogue: '\udcff'"),
        (["--history", " , "], "history 1 is empty"),
        (["--history", "1", "-k", "60"], "k is 60, but the search has only 50 beams"),
        (["--input", "nothing.jsonl"], "no such file: nothing.jsonl"),
    ],
)
def test_recommend_mistakes(config: Config, arguments: list[str], said: str) -> None:
    assert said in message("recommend", config.output_dir, *arguments)


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"history": "1"}', '{"history": [[1]]}', '{"user_id": 1}']
)
def test_a_broken_line_is_named(config: Config, line: str) -> None:
    said = message(
        "recommend", config.output_dir, "--input", "-", stdin='{"history": [1]}\n' + line + "\n"
    )
    assert "standard input, line 2" in said
