"""Evaluate, recommend and compare, as people and programs meet them, on a model trained in seconds."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from tests.slow_search import Reference
from tests.tiny_data import TITLES, tiny_config
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import sidtune
from sidtune.cli import BEAMS, MAX_TOKENS, app
from sidtune.config import Config
from sidtune.data.catalogue import read_catalogue
from sidtune.data.rows import read_rows
from sidtune.errors import UserError
from sidtune.evaluation import ranker
from sidtune.evaluation.recommender import Recommender
from sidtune.training.train import train

ITEMS = [str(item) for item in range(len(TITLES))]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A trained run."""
    made = tiny_config(tmp_path_factory.mktemp("shop"), training={"epochs": 4, "batch_size": 16, "learning_rate": 0.01})
    assert train(made)
    return made


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Path:
    """The run's folder, to write into."""
    copy = tmp_path / "run"
    shutil.copytree(config.output_dir, copy)
    return copy


def call(*arguments: object, stdin: str = "") -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def results(folder: Path, split: str = "test") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report and the predictions that were written."""
    report = json.loads((folder / f"{split}.json").read_text())
    return report, pyarrow.parquet.read_table(folder / f"{split}.predictions.parquet").to_pylist()


def plainly_ranked(config: Config, history: list[str], among: set[str] | None = None) -> list[tuple[str, float]]:
    """Items and scores, best first, with plain Transformers and the prompt as a string."""
    catalogue = read_catalogue(config.data.items, config.data.index)
    sid = dict(zip(catalogue.ids, catalogue.sids, strict=True))
    tokenizer = AutoTokenizer.from_pretrained(config.output_dir)
    model = AutoModelForCausalLM.from_pretrained(config.output_dir).eval()
    written = "".join("".join(sid[item]) for item in history)
    prompt = tokenizer(f"A user's interactions, oldest first:\n{written}\nThe next item is:\n").input_ids
    users: dict[str, set[str]] = {item: set() for item in catalogue.ids}
    for row in read_rows(config.data.train).to_pylist():
        for item in [*row["history"], row["target"]]:
            users[item].add(row["user_id"])
    items = [item for item in catalogue.ids if among is None or item in among]
    paths = {item: tuple(tokenizer.convert_tokens_to_ids(list(sid[item]))) for item in items}
    reference = Reference(model, prompt, sorted(set(paths.values())), "full")
    score = {path: reference.score(path) for path in set(paths.values())}
    order = sorted(items, key=lambda item: (-score[paths[item]], -len(users[item]), catalogue.ids.index(item)))
    return [(item, score[paths[item]]) for item in order]


# --- evaluate ---


def test_every_prediction_is_that_of_scoring_all_items_plainly(config: Config, run: Path) -> None:
    done = call("evaluate", run)
    assert done.exit_code == 0, done.output
    report, predictions = results(run / "evaluation")
    rows = read_rows(Path(str(config.data.test))).to_pylist()
    assert len(predictions) == len(rows) == report["rows"] == 12
    for number, (row, predicted) in enumerate(zip(rows, predictions, strict=True), start=1):
        right = plainly_ranked(config, row["history"])
        assert predicted["items"] == [item for item, _ in right]
        assert predicted["scores"] == pytest.approx([score for _, score in right], abs=1e-4)
        assert (predicted["row"], predicted["user_id"]) == (number, row["user_id"])
        assert predicted["target"] == row["target"]
        assert predicted["item_rank"] == predicted["items"].index(row["target"]) + 1
        above = {score for _, score in right if score > right[predicted["item_rank"] - 1][1] + 1e-9}
        assert predicted["sid_rank"] == len(above) + 1


def test_the_report_holds_the_metrics_of_the_predictions(run: Path) -> None:
    assert call("evaluate", run).exit_code == 0
    report, predictions = results(run / "evaluation")
    ranks = {"sid": [p["sid_rank"] for p in predictions], "item": [p["item_rank"] for p in predictions]}
    for level, places in ranks.items():
        figures = report["rankers"]["model"][level]
        assert figures["HR@3"]["value"] == pytest.approx(sum(place <= 3 for place in places) / 12)
        gains = sum(1 / math.log2(place + 1) for place in places if place <= 5)
        assert figures["NDCG@5"]["value"] == pytest.approx(gains / 12)
        assert figures["MRR"]["value"] == pytest.approx(sum(1 / place for place in places) / 12)
        assert figures["HR@3"]["low"] < figures["HR@3"]["value"] < figures["HR@3"]["high"]
    assert list(report["rankers"]) == ["model", "most popular", "repeat last", "co-occurrence"]
    shared = sum(p["target"] in ("6", "7") for p in predictions)
    assert report["colliding"] == pytest.approx(shared / 12)
    assert sum(group["rows"] for group in report["rankers"]["model"]["by_history"]) == 12
    assert report["settings"]["beams"] == 50
    assert report["settings"]["rows"].endswith("test.csv")


def test_the_table_shows_the_model_beside_the_baselines(run: Path) -> None:
    output = call("evaluate", run).output
    report, _ = results(run / "evaluation")
    (line,) = (line for line in output.splitlines() if line.startswith("HR@10"))
    shown = [float(cell) for cell in line.replace("HR@10", "").split()]
    names = list(report["rankers"])
    expected = [report["rankers"][name][level]["HR@10"]["value"] for level in ("sid", "item") for name in names]
    assert shown[:1] + shown[2:6] + shown[7:] == pytest.approx(expected, abs=1e-4)
    assert "12 rows, 8 items, 50 beams" in output


@pytest.mark.parametrize("folder", ["final_checkpoint", "checkpoint"])
def test_a_checkpoint_can_be_evaluated_too(run: Path, folder: str) -> None:
    model = run / folder if folder == "final_checkpoint" else next(iter(sorted(run.glob("checkpoint-*"))))
    done = call("evaluate", model, "--output", run / "elsewhere", "--split", "valid", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == results(run / "elsewhere", "valid")[0]


def test_neither_configuration_nor_training_rows_are_needed(config: Config, run: Path) -> None:
    (run / "config.yaml").unlink()
    assert "has no config.yaml" in str(call("evaluate", run).exception)
    done = call("evaluate", run, "--rows", config.data.test)
    assert done.exit_code == 0, done.output
    assert "there are no baselines" in done.output
    assert list(results(run / "evaluation")[0]["rankers"]) == ["model"]
    assert call("evaluate", run, "--rows", config.data.test, "--train", config.data.train).exit_code == 0
    assert len(results(run / "evaluation")[0]["rankers"]) == 4


def test_candidates_and_history_restrict_every_ranker(config: Config, run: Path, tmp_path: Path) -> None:
    (tmp_path / "stock.txt").write_text("1\n2\n\n6\n7\nnobody\n")
    done = call("evaluate", run, "--candidates", tmp_path / "stock.txt", "--exclude-history")
    assert "1 of 5 ids are not in the catalogue: nobody" in done.output
    report, predictions = results(run / "evaluation")
    rows = read_rows(Path(str(config.data.test))).to_pylist()
    for row, predicted in zip(rows, predictions, strict=True):
        allowed = {"1", "2", "6", "7"} - set(row["history"])
        right = plainly_ranked(config, row["history"], {"1", "2", "6", "7"})
        assert predicted["items"] == [item for item, _ in right if item in allowed]
        assert (predicted["item_rank"] > 0) == (row["target"] in allowed)
    barred = sum(row["target"] not in {"1", "2", "6", "7"} - set(row["history"]) for row in rows)
    assert report["barred"] == barred > 0
    for figures in report["rankers"].values():
        assert figures["repeated"] == 0.0
        assert figures["item"]["HR@10"]["value"] <= 1 - barred / 12


def test_fewer_rows_and_beams(run: Path) -> None:
    assert call("evaluate", run, "--limit", 5, "--beams", 3).exit_code == 0
    report, predictions = results(run / "evaluation")
    assert report["rows"] == len(predictions) == 5
    assert len({p["row"] for p in predictions}) == 5
    assert set(report["rankers"]["model"]["item"]) == {"HR@1", "NDCG@1", "HR@3", "NDCG@3", "MRR"}
    assert all(len(p["items"]) == 3 for p in predictions)


def test_two_processes_find_what_one_finds(run: Path, tmp_path: Path) -> None:
    """One token at once: every user is a batch of its own, so that each process has some."""
    commands = {1: [sys.executable, "-m"], 2: [sys.executable, "-m", "torch.distributed.run", "--standalone"]}
    commands[2] += ["--nproc-per-node=2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for processes, command in commands.items():
        options = ["--max-tokens", "1", "--output", str(tmp_path / str(processes))]
        done = subprocess.run(
            [*command, "sidtune", "evaluate", str(run), *options],
            capture_output=True, text=True, env=environment, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("12 rows, 8 items") == 1, "one process speaks"
    (one, mine), (two, theirs) = (results(tmp_path / str(processes)) for processes in commands)
    assert mine == theirs
    assert one["rankers"] == two["rankers"]
    assert two["settings"]["processes"] == 2


# --- recommend ---


def test_recommend_one_history(config: Config) -> None:
    done = call("recommend", config.output_dir, "--history", "3, 1", "-k", 4, "--json")
    (line,) = done.output.splitlines()
    items = json.loads(line)["items"]
    right = plainly_ranked(config, ["3", "1"])[:4]
    assert [entry["item_id"] for entry in items] == [item for item, _ in right]
    assert [entry["score"] for entry in items] == pytest.approx([score for _, score in right], abs=1e-4)
    assert [entry["title"] for entry in items] == [TITLES[int(item)] for item, _ in right]
    shown = call("recommend", config.output_dir, "--history", "3,1", "-k", 4).output
    for place, entry in enumerate(items, start=1):
        assert any(str(place) in row and entry["title"] in row and entry["sid"] in row for row in shown.splitlines())


def test_recommend_many_lines(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More lines than are asked at once, some of them with items that nobody knows."""
    monkeypatch.setattr("sidtune.evaluation.stream.LINES_AT_ONCE", 2)
    lines = [
        {"user_id": "a", "history": ["1"]},
        {"user_id": "b", "history": ["1", "nobody", 2]},
        {"history": ["none"]},
        {"user_id": 7, "history": ["5", "5"]},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    (tmp_path / "asked.jsonl").write_text(text)
    done = call("recommend", config.output_dir, "--input", tmp_path / "asked.jsonl", "-k", 2, "--json")
    answers = [json.loads(line) for line in done.output.splitlines()]
    assert [answer.get("user_id") for answer in answers] == ["a", "b", None, 7]
    assert [answer.get("unknown") for answer in answers] == [None, ["nobody"], ["none"], None]
    asked = [["1"], ["1", "2"], None, ["5", "5"]]
    for answer, history in zip(answers, asked, strict=True):
        expected = [item for item, _ in plainly_ranked(config, history)[:2]] if history else []
        assert [entry["item_id"] for entry in answer["items"]] == expected
    piped = call("recommend", config.output_dir, "--input", "-", "-k", 2, "--json", stdin=text)
    assert piped.output == done.output
    shown = call("recommend", config.output_dir, "--input", tmp_path / "asked.jsonl", "-k", 2).output
    assert "b · not in the catalogue: nobody" in shown


def test_recommend_in_python(config: Config) -> None:
    assert sidtune.Recommender is Recommender
    recommender = Recommender.load(config.output_dir)
    first, second = recommender.recommend([["1"], ["4", "2"]], k=3)
    assert [r.item_id for r in first] == [item for item, _ in plainly_ranked(config, ["1"])[:3]]
    assert isinstance(second[0], sidtune.Recommendation)
    assert recommender.recommend([]) == []
    kept = recommender.among(["2", "4", "5"]).recommend([["4", "2"]], k=3, exclude_history=True)
    assert [[r.item_id for r in row] for row in kept] == [["5"]]
    again = recommender.recommend([["1"]], k=3)[0]
    assert [r.item_id for r in again] == [r.item_id for r in first], "the restriction made another recommender"
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


# --- compare ---


def test_compare_two_runs(config: Config, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    weights = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.normal_(0, 0.2)
    weights.save_pretrained(other)
    for folder in (run, other):
        assert call("evaluate", folder).exit_code == 0
    done = call("compare", run, other, "--json")
    (comparison,) = json.loads(done.output)
    ranks = [np.array([p["item_rank"] for p in results(folder / "evaluation")[1]]) for folder in (run, other)]
    expected = float(((ranks[1] <= 1) & (ranks[1] > 0)).mean() - ((ranks[0] <= 1) & (ranks[0] > 0)).mean())
    (entry,) = (d for d in comparison["differences"] if (d["level"], d["metric"]) == ("item", "HR@1"))
    assert entry["difference"] == pytest.approx(expected)
    assert comparison["rows"] == 12
    assert "NDCG@10" in call("compare", run, other).output


# --- while training ---


def ranked_config(folder: Path, **evaluation: Any) -> Config:
    given = {"every": 4, "patience": None, "ranking": {"every": 1, "sample": 7, "beams": 10}, **evaluation}
    return tiny_config(folder, eval=given)


def logged(config: Config) -> list[dict[str, Any]]:
    lines = (config.output_dir / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "eval_sid_next_loss" in entry]


def test_ranking_metrics_are_logged_like_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ranked_config(tmp_path, ranking={"every": 2, "sample": 12, "beams": 10})
    assert train(config)
    entries = logged(config)
    assert len(entries) > 4
    steps = [entry["step"] for entry in entries]
    last = steps[-1]
    assert [entry["step"] for entry in entries if "eval_ndcg@10" in entry] == [
        step for step in steps if step % 8 == 0 or step == last
    ]
    assert "ndcg@10" in capsys.readouterr().out
    shutil.rmtree(config.output_dir / "final_checkpoint")
    checkpoint = config.output_dir / f"checkpoint-{last}"
    assert call("evaluate", checkpoint, "--split", "valid", "--beams", 10).exit_code == 0
    report, _ = results(checkpoint / "evaluation", "valid")
    for name in ("HR@10", "NDCG@10", "HR@1"):
        figure = report["rankers"]["model"]["item"][name]["value"]
        assert figure == pytest.approx(entries[-1][f"eval_{name.lower()}"])


@pytest.mark.parametrize("metric", ["ndcg@10", "hr@10"])
def test_the_best_model_can_be_chosen_by_ranking(tmp_path: Path, metric: str) -> None:
    config = ranked_config(tmp_path, metric=metric)
    result = train(config)
    assert result
    entries = logged(config)[1:]
    best = max(entry[f"eval_{metric}"] for entry in entries)
    step = next(entry["step"] for entry in entries if entry[f"eval_{metric}"] == best)
    state = json.loads((config.output_dir / f"checkpoint-{step}" / "trainer_state.json").read_text())
    assert state["best_metric"] == pytest.approx(best)
    assert result.best_loss == next(entry["eval_sid_next_loss"] for entry in entries if entry["step"] == step)


def test_early_stopping_watches_the_ranking_metric(tmp_path: Path) -> None:
    """With every item in the list HR@10 is 1 from the first evaluation on, and cannot get better."""
    config = ranked_config(tmp_path, metric="hr@10", patience=2)
    result = train(config)
    assert result
    assert [entry["eval_hr@10"] for entry in logged(config)] == [1.0] * 4
    assert result.steps == 12


def test_ranking_changes_nothing_but_the_log(tmp_path: Path) -> None:
    with_it, without = ranked_config(tmp_path, ranking={"every": 1}), ranked_config(tmp_path, ranking={})
    weights = []
    for name, config in (("with", with_it), ("without", without)):
        own = config.model_copy(update={"output_dir": tmp_path / name})
        assert train(own)
        weights.append(AutoModelForCausalLM.from_pretrained(own.output_dir).state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


# --- mistakes ---


def message(*arguments: object, stdin: str = "") -> str:
    """The one message of a mistake."""
    error = call(*arguments, stdin=stdin).exception
    assert isinstance(error, UserError), error
    return str(error)


def test_a_folder_without_a_model(tmp_path: Path, config: Config, run: Path) -> None:
    assert "no such folder" in message("evaluate", tmp_path / "nothing")
    assert "holds no model" in message("recommend", tmp_path, "--history", "1")
    for file in run.iterdir():
        if file.is_file() and file.name != "config.yaml":
            file.unlink()
    newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert f"not finished; give a checkpoint: {newest}" in message("evaluate", run)
    assert "has no sid_catalogue.parquet" in message("recommend", config.model.base, "--history", "1")


def test_a_catalogue_that_is_not_the_models(config: Config, run: Path) -> None:
    table = pyarrow.parquet.read_table(run / "sid_catalogue.parquet")
    sids = [["<z_1>", "<z_2>"]] * table.num_rows
    changed = table.set_column(2, table.schema.field(2), [sids])
    pyarrow.parquet.write_table(changed, run / "sid_catalogue.parquet")
    assert "does not know 2 of the catalogue's 2 SID tokens" in message("recommend", run, "--history", "1")


def test_a_model_that_is_not_the_tokenizers(config: Config, run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run)
    model.resize_token_embeddings(64)
    model.save_pretrained(run)
    assert "the model has 64 rows, and SID tokens have ids up to" in message("evaluate", run)


def test_damaged_weights(run: Path) -> None:
    path = run / "model.safetensors"
    path.unlink()
    path.write_bytes(b"\0" * 100)
    assert "weights" in message("evaluate", run)


def test_rows_that_cannot_be_ranked(config: Config, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("user_id,history,item_id\n")
    assert "holds no rows" in message("evaluate", run, "--rows", tmp_path / "empty.csv")
    (tmp_path / "strange.csv").write_text("user_id,history,item_id\nu,[1],2\nu,[99],2\n")
    said = message("evaluate", run, "--rows", tmp_path / "strange.csv")
    assert "mention items that have no SID: 99 (first in row 2)" in said
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("  test:", "  #"))
    assert "names no data.test" in message("evaluate", run)
    assert not (run / "evaluation").exists()


def test_candidates_without_any_item(run: Path, tmp_path: Path) -> None:
    (tmp_path / "stock.txt").write_text("x\ny\n")
    assert "none of 2 ids is in the catalogue: x, y" in message("evaluate", run, "--candidates", tmp_path / "stock.txt")
    (tmp_path / "empty.txt").write_text("\n")
    assert "is empty" in message("evaluate", run, "--candidates", tmp_path / "empty.txt")
    assert "no such file" in message("evaluate", run, "--candidates", tmp_path / "no.txt")


def test_a_folder_that_cannot_be_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    assert "cannot be made" in message("evaluate", run, "--output", tmp_path / "taken" / "results")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --history or --input"),
        (["--history", "1", "--input", "x"], "give either --history or --input"),
        (["--history", "1,nobody"], "1 items are not in the catalogue: nobody"),
        (["--history", " , "], "history 1 is empty"),
        (["--history", "1", "-k", "60"], "k is 60, and the search has 50 beams"),
        (["--input", "nothing.jsonl"], "no such file: nothing.jsonl"),
    ],
)
def test_recommend_mistakes(config: Config, arguments: list[str], said: str) -> None:
    assert said in message("recommend", config.output_dir, *arguments)


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"history": "1"}', '{"history": []}', '{"history": [[1]]}', '{"user_id": 1}']
)
def test_a_broken_line_is_named(config: Config, line: str) -> None:
    said = message("recommend", config.output_dir, "--input", "-", stdin='{"history": [1]}\n' + line + "\n")
    assert "standard input, line 2" in said


def test_compare_mistakes(run: Path) -> None:
    assert "nothing to compare" in message("compare", run)
    assert f"sidtune evaluate {run} --split test" in message("compare", run, run)


def test_defaults_of_the_command_line_are_the_rankers() -> None:
    assert (BEAMS, MAX_TOKENS) == (ranker.BEAMS, ranker.MAX_TOKENS)
