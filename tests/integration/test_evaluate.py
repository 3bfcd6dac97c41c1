"""`sidtune evaluate` and `sidtune compare` on a model trained in seconds."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.asking import call, message, plain_reference, plainly_ranked, results
from tests.forking import Command, rank_environments
from tests.rankers import BASELINES, SIMPLE
from tests.tiny_data import read_rows
from transformers import AutoModelForCausalLM
from typer.main import get_command

from sidtune.commands.main import app
from sidtune.config.search import RankOptions
from sidtune.data.catalogue import read_catalogue
from sidtune.decoding.recommender import Recommender
from sidtune.encoding.build import load_catalogue
from sidtune.metrics import repeats
from sidtune.tasks.config import Config


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
    ranks = {
        "sid": [p["sid_rank"] for p in predictions],
        "item": [p["item_rank"] for p in predictions],
    }
    for level, places in ranks.items():
        figures = report["rankers"]["model"][level]
        assert figures["HR@3"]["value"] == pytest.approx(sum(place <= 3 for place in places) / 12)
        gains = sum(1 / math.log2(place + 1) for place in places if place <= 5)
        assert figures["NDCG@5"]["value"] == pytest.approx(gains / 12)
        assert figures["MRR"]["value"] == pytest.approx(sum(1 / place for place in places) / 12)
        assert figures["HR@3"]["low"] < figures["HR@3"]["value"] < figures["HR@3"]["high"]
    assert list(report["rankers"]) == ["model", *BASELINES]
    shared = sum(p["target"] in ("6", "7") for p in predictions)
    assert report["colliding"] == pytest.approx(shared / 12)
    assert sum(group["rows"] for group in report["rankers"]["model"]["by_history"]) == 12
    assert report["settings"]["beams"] == 50
    assert report["settings"]["rows"].endswith("test.csv")


def test_details_are_those_of_the_lists(config: Config, run: Path) -> None:
    """Agreement by token, examples and lengths, by loops over the written lists."""
    assert call("evaluate", run).exit_code == 0
    report, predictions = results(run / "evaluation")
    catalogue = load_catalogue(config)
    sid = dict(zip(catalogue.ids, catalogue.sids, strict=True))
    rows = read_rows(Path(str(config.data.test))).to_pylist()
    levels = report["details"]["levels"]
    assert [level["tokens"] for level in levels] == [0, 1, 2, 3]
    for level in levels:
        tokens, places, mass = level["tokens"], [], 0.0
        for row in predictions:
            scores = {
                sid[item]: score for item, score in zip(row["items"], row["scores"], strict=True)
            }
            wanted = sid[row["target"]][:tokens]
            agrees = [listed[:tokens] == wanted for listed in scores]
            places.append(agrees.index(True) if any(agrees) else math.inf)
            mass += sum(math.exp(s) for listed, s in scores.items() if listed[:tokens] == wanted)
        for name, depth in (("first", 1), ("among", 10), ("listed", 50)):
            share = np.mean([place < depth for place in places])
            assert level[name]["value"] == pytest.approx(share), (tokens, name)
        assert level["mass"] == pytest.approx(mass / len(rows), rel=1e-4)
    examples = report["details"]["examples"]
    assert len(examples) >= 6
    assert sum(example["rank"] == 1 for example in examples) == min(
        3, sum(row["item_rank"] == 1 for row in predictions)
    )
    for example in examples:
        row, listed = rows[example["row"] - 1], predictions[example["row"] - 1]
        assert (example["user"], example["target"]) == (row["user_id"], row["target"])
        assert (example["rank"], example["items"]) == (listed["item_rank"], listed["items"][:10])
        assert example["history"] == row["history"][-10:]
        assert example["earlier"] == max(0, len(row["history"]) - 10)
    for split in ("train", "test"):
        lengths = [
            len(row["history"]) for row in read_rows(config.data.rows_file(split)).to_pylist()
        ]
        assert report["details"]["histories"][split] == np.bincount(lengths).tolist()
    valid = read_rows(config.data.rows_file("valid"))
    pairs = zip(valid["target"].to_pylist(), valid["history"].to_pylist(), strict=True)
    repeating = np.mean([target in history for target, history in pairs])
    assert report["details"]["repeating"]["value"] == pytest.approx(repeating)


def test_a_history_that_nobody_has_again_is_told_of(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every share counts as rare here, since a tiny shop shows little."""
    told = "of the top 10 is history. To exclude it:"
    command = f"  sidtune evaluate {run} --exclude-history --output {run}/without-history"
    assert told not in call("evaluate", run).output
    monkeypatch.setattr(repeats, "RARE", 1.0)
    lines = call("evaluate", run).output.splitlines()
    (place,) = (place for place, line in enumerate(lines) if told in line)
    assert len(lines[place]) <= 80
    assert lines[place + 1] == command
    assert told not in call("evaluate", run, "--json").output
    again = call(*command.split()[1:])
    assert again.exit_code == 0, again.output
    assert told not in again.output


def test_the_table_shows_the_model_beside_the_baselines(run: Path) -> None:
    output = call("evaluate", run).output
    report, _ = results(run / "evaluation")
    shown = {name: [] for name in report["rankers"]}
    for line in output.splitlines():
        name = next((name for name in shown if line.startswith(f"{name}  ")), None)
        cells = [cell for cell in line.split() if re.fullmatch(r"[01]\.\d{4}", cell)]
        if name and len(cells) == 5:
            shown[name].append([float(cell) for cell in cells])
    for name, summary in report["rankers"].items():
        metrics = ("HR@1", "HR@5", "HR@10", "HR@50", "NDCG@10")
        expected = [
            [summary[level][metric]["value"] for metric in metrics] for level in ("item", "sid")
        ]
        assert shown[name] == [pytest.approx(line, abs=1e-4) for line in expected]
    assert max(map(len, output.splitlines())) <= 80 or "by SID" in output
    assert "12 rows, 8 items, 50 beams" in output


@pytest.mark.parametrize("folder", ["final_checkpoint", "checkpoint"])
def test_a_checkpoint_can_be_evaluated_too(run: Path, folder: str) -> None:
    model = (
        run / folder
        if folder == "final_checkpoint"
        else next(iter(sorted(run.glob("checkpoint-*"))))
    )
    done = call("evaluate", model, "--output", run / "elsewhere", "--split", "valid", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == results(run / "elsewhere", "valid")[0]


def test_neither_configuration_nor_training_rows_are_needed(config: Config, run: Path) -> None:
    (run / "config.yaml").unlink()
    assert "has no config.yaml" in str(call("evaluate", run).exception)
    done = call("evaluate", run, "--rows", config.data.test)
    assert done.exit_code == 0, done.output
    assert "baselines are skipped" in done.output
    assert list(results(run / "evaluation")[0]["rankers"]) == ["model"]
    assert (
        call("evaluate", run, "--rows", config.data.test, "--train", config.data.train).exit_code
        == 0
    )
    assert len(results(run / "evaluation")[0]["rankers"]) == 1 + len(SIMPLE)


def test_without_baselines(config: Config, run: Path, tmp_path: Path) -> None:
    assert call("evaluate", run).exit_code == 0
    with_them, lists = results(run / "evaluation")
    config.data.train.rename(tmp_path / "away.csv")
    try:
        alone = call("evaluate", run, "--no-baselines", "--output", tmp_path / "alone")
        named = call(
            "evaluate",
            run,
            "--no-baselines",
            "--output",
            tmp_path / "rows",
            "--rows",
            config.data.test,
        )
    finally:
        (tmp_path / "away.csv").rename(config.data.train)
    assert alone.exit_code == 0, alone.output
    assert "warning" not in alone.output, "it is what was asked for"
    assert "most popular" not in " ".join(alone.output.split())
    report, same_lists = results(tmp_path / "alone")
    # How a target can be reached is counted on training rows.
    without_reach = {**with_them["rankers"]["model"], "by_reach": []}
    assert report["rankers"] == {"model": without_reach}
    assert same_lists == [{key: row[key] for key in row if key != "reach"} for row in lists]
    assert report["settings"]["train"] is None
    assert named.exit_code == 0, named.output
    compared = call("compare", run, tmp_path / "alone", "--json")
    assert compared.exit_code == 0, compared.output
    assert all(found["difference"] == 0 for found in json.loads(compared.stdout)[0]["differences"])
    said = message("evaluate", run, "--no-baselines", "--train", config.data.train)
    assert "--train has no effect with --no-baselines" in said


def test_candidates_and_history_restrict_every_ranker(
    config: Config, run: Path, tmp_path: Path
) -> None:
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
    excluded = sum(row["target"] not in {"1", "2", "6", "7"} - set(row["history"]) for row in rows)
    assert report["excluded"] == excluded > 0
    for figures in report["rankers"].values():
        assert figures["repeated"] == 0.0
        assert figures["item"]["HR@10"]["value"] <= 1 - excluded / 12


def test_fewer_rows_and_beams(run: Path) -> None:
    done = call("evaluate", run, "--limit", 5, "--beams", 3)
    assert done.exit_code == 0
    assert "K of 5, 10, 20, 50 omitted: lists have 3 positions" in done.output
    report, predictions = results(run / "evaluation")
    assert report["rows"] == len(predictions) == 5
    assert len({p["row"] for p in predictions}) == 5
    assert set(report["rankers"]["model"]["item"]) == {"HR@1", "NDCG@1", "HR@3", "NDCG@3", "MRR"}
    assert all(len(p["items"]) == 3 for p in predictions)


def test_an_evaluation_made_otherwise_is_kept(run: Path, tmp_path: Path) -> None:
    assert call("evaluate", run).exit_code == 0
    before = (run / "evaluation" / "test.json").read_text()
    said = message("evaluate", run, "--limit", 5, "--beams", 3)
    assert "contains an evaluation with different settings (beams, limit)" in said
    said = message("evaluate", run, "--no-rank")
    assert "contains an evaluation with different settings (no_rank)" in said
    said = message("evaluate", run, "--no-baselines")
    assert "contains an evaluation with different settings (no_baselines)" in said
    assert (run / "evaluation" / "test.json").read_text() == before
    assert call("evaluate", run, "--limit", 5, "--output", tmp_path / "other").exit_code == 0
    again = call("evaluate", run)
    assert again.exit_code == 0
    assert f"{run}/evaluation/test.json" in again.output.replace("\n", "")


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_with_few_beams_it_is_the_textbook_search(config: Config, run: Path, beams: int) -> None:
    assert call("evaluate", run, "--beams", beams).exit_code == 0
    _, predictions = results(run / "evaluation")
    catalogue = read_catalogue(config.data.items, config.data.index)
    sid = dict(zip(catalogue.ids, catalogue.sids, strict=True))
    for row, predicted in zip(
        read_rows(Path(str(config.data.test))).to_pylist(), predictions, strict=True
    ):
        reference, paths, tokenizer = plain_reference(config, row["history"])
        written = {paths[number]: score for number, score in reference.beam_search(beams)}
        shown = {
            tuple(tokenizer.convert_tokens_to_ids(list(sid[item]))) for item in predicted["items"]
        }
        assert shown <= written.keys()
        assert predicted["scores"][0] == pytest.approx(max(written.values()), abs=1e-4)


def test_a_model_that_diverged_gets_no_figures(run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(run)
    assert "outputs are NaN" in message("evaluate", run)
    assert not (run / "evaluation" / "test.json").exists()


def test_json_is_all_there_is_on_the_standard_output(
    config: Config, run: Path, tmp_path: Path
) -> None:
    """Warnings go to the other one."""
    (tmp_path / "stock.txt").write_text("1\n2\nnobody\n")
    (run / "config.yaml").unlink()
    done = call(
        "evaluate",
        run,
        "--rows",
        config.data.test,
        "--candidates",
        tmp_path / "stock.txt",
        "--json",
    )
    assert json.loads(done.stdout)["items"] == 2
    assert "nobody" in done.stderr
    assert "baselines are skipped" in done.stderr


def test_two_processes_find_what_one_finds(run: Path, tmp_path: Path) -> None:
    """One token at once: every user is a batch of its own, so that each process has some."""
    command = ["evaluate", str(run), "--max-tokens", "1", "--output"]
    alone = call(*command, tmp_path / "1")
    assert alone.exit_code == 0, alone.output
    ranks = [
        Command([*command, str(tmp_path / "2")], tmp_path / f"rank{rank}.log", **variables)
        for rank, variables in enumerate(rank_environments(2))
    ]
    assert [rank.ends() for rank in ranks] == [0, 0], ranks[0].said()
    together = "".join(rank.log.read_text() for rank in ranks)
    for said in (alone.stdout, together):
        assert said.count("12 rows, 8 items") == 1, "one process speaks"
    (one, mine), (two, theirs) = (results(tmp_path / processes) for processes in ("1", "2"))
    assert mine == theirs
    assert one["rankers"] == two["rankers"]
    assert two["settings"]["processes"] == 2


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
    (comparison,) = json.loads(done.stdout)
    ranks = [
        np.array([p["item_rank"] for p in results(folder / "evaluation")[1]])
        for folder in (run, other)
    ]
    expected = float(
        ((ranks[1] <= 1) & (ranks[1] > 0)).mean() - ((ranks[0] <= 1) & (ranks[0] > 0)).mean()
    )
    (entry,) = (
        d for d in comparison["differences"] if (d["level"], d["metric"]) == ("item", "HR@1")
    )
    assert entry["difference"] == pytest.approx(expected)
    assert comparison["rows"] == 12
    assert comparison["unlike"] == []
    assert "NDCG@10" in call("compare", run, other).output
    assert (
        call("evaluate", other, "--exclude-history", "--output", tmp_path / "elsewhere").exit_code
        == 0
    )
    assert (
        "the evaluations differ in exclude_history"
        in call("compare", run, tmp_path / "elsewhere").output
    )


# --- mistakes ---


def test_a_folder_without_a_model(tmp_path: Path, config: Config, run: Path) -> None:
    assert "no such folder" in message("evaluate", tmp_path / "nothing")
    assert "is a file" in message("evaluate", run / "config.yaml")
    assert f"Did you mean {run}?" in message("evaluate", tmp_path)
    assert "contains no model" in message("recommend", tmp_path, "--history", "1")
    for file in run.iterdir():
        if file.is_file() and file.name != "config.yaml":
            file.unlink()
    newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert f"not finished; give a checkpoint: {newest}" in message("evaluate", run)
    assert "has no sid_catalogue.parquet" in message(
        "recommend", config.model.base, "--history", "1"
    )


def test_a_model_that_is_not_the_tokenizers(config: Config, run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run)
    model.resize_token_embeddings(64)
    model.save_pretrained(run)
    assert "the model has 64 rows, but SID tokens have ids up to" in message("evaluate", run)


def test_damaged_weights(run: Path) -> None:
    path = run / "model.safetensors"
    path.unlink()
    path.write_bytes(b"\0" * 100)
    assert "weights" in message("evaluate", run)


def test_rows_that_cannot_be_ranked(config: Config, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("user_id,history,item_id\n")
    assert "contains no rows" in message("evaluate", run, "--rows", tmp_path / "empty.csv")
    (tmp_path / "strange.csv").write_text("user_id,history,item_id\nu,[1],2\nu,[99],2\n")
    said = message("evaluate", run, "--rows", tmp_path / "strange.csv")
    assert "contain items without a SID: 99 (first in row 2)" in said
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("  test:", "  #"))
    assert "has no data.test" in message("evaluate", run)
    assert not (run / "evaluation").exists()


def test_training_rows_are_read_before_the_model_ranks(
    config: Config, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recommender, "lists", lambda *_, **__: pytest.fail("the model ranked"))
    (tmp_path / "strange.csv").write_text("user_id,history,item_id\nu,[1],2\nu,[99],2\n")
    said = message("evaluate", run, "--train", tmp_path / "strange.csv")
    assert "contain items without a SID: 99 (first in row 2)" in said
    text = (run / "config.yaml").read_text()
    text = text.replace(str(config.data.valid), str(tmp_path / "strange.csv"))
    (run / "config.yaml").write_text(text)
    assert "99 (first in row 2)" in message("evaluate", run)
    assert not (run / "evaluation").exists()


def test_candidates_without_any_item(run: Path, tmp_path: Path) -> None:
    (tmp_path / "stock.txt").write_text("x\ny\n")
    assert "none of the 2 ids is in the catalogue: x, y" in message(
        "evaluate", run, "--candidates", tmp_path / "stock.txt"
    )
    (tmp_path / "empty.txt").write_text("\n")
    assert "is empty" in message("evaluate", run, "--candidates", tmp_path / "empty.txt")
    assert "no such file" in message("evaluate", run, "--candidates", tmp_path / "no.txt")


def test_a_folder_that_cannot_be_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    assert "cannot be written to" in message(
        "evaluate", run, "--output", tmp_path / "taken" / "results"
    )


def test_compare_mistakes(run: Path) -> None:
    assert "compare needs at least two runs" in message("compare", run)
    assert f"sidtune evaluate {run} --split test" in message("compare", run, run)
    assert "no such folder" in message("compare", run / "nowhere", run)


@pytest.mark.parametrize("command", ["evaluate", "recommend"])
def test_defaults_of_the_command_line_are_the_rankers(command: str) -> None:
    defaults = {p.name: p.default for p in get_command(app).commands[command].params}  # type: ignore[attr-defined]
    for name, value in asdict(RankOptions()).items():
        assert defaults.get(name, value) == value
    assert {"beams", "normalize", "exclude_history"} <= defaults.keys()
