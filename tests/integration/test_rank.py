"""The ranker beside a trained model: fitted, used, left out, and counted on."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.asking import call, message, results
from tests.rankers import BASELINES
from tests.serving import engine_of
from tests.tiny_data import tiny_config

from sidtune import Recommender
from sidtune.base.errors import UserError
from sidtune.config.search import RankOptions
from sidtune.decoding.prompts import Prompts
from sidtune.evaluation.reach import REACH_NAMES, reached
from sidtune.opponents.baselines import Baselines
from sidtune.pipeline.rank import given_options, is_ranked, rank_after, rank_run
from sidtune.ranker import file as ranker_file
from sidtune.ranker.file import FILE, read_ranker, write_ranker
from sidtune.reporting import page
from sidtune.reporting.record import read_records
from sidtune.runs.bundle import read_bundle
from sidtune.serving.engine import Engine
from sidtune.serving.reload import Reloader
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import load_config
from sidtune.tasks.source import load_split
from sidtune.tokenizer.load import load_tokenizer
from sidtune.training.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = tiny_config(tmp_path_factory.mktemp("rank"), training={"epochs": 1})
    train(config)
    rank_run(config.output_dir)
    return config


@pytest.fixture
def run(trained: Config, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(trained.output_dir, tmp_path / "run"))


def change_config(run: Path, **sections: dict[str, Any]) -> None:
    file = run / "config.yaml"
    tree = yaml.safe_load(file.read_text("utf-8"))
    file.write_text(yaml.safe_dump(tree | sections), encoding="utf-8")


def test_tables_show_the_ranker_the_model_and_the_ranker_without_it(run: Path) -> None:
    done = call("evaluate", run)
    assert done.exit_code == 0, done.output
    report, lists = results(run / "evaluation")
    assert list(report["rankers"]) == ["ranker", "model", "ranker without model", *BASELINES]
    ranks = [row["item_rank"] for row in lists]
    found = report["rankers"]["ranker"]["item"]["HR@3"]["value"]
    assert found == pytest.approx(np.mean([0 < rank <= 3 for rank in ranks]))
    for row in lists:
        place = row["items"].index(row["target"]) + 1 if row["target"] in row["items"] else 0
        assert row["item_rank"] == place
        assert row["scores"] == sorted(row["scores"], reverse=True)
    assert "ranker without model" in done.output


def test_a_report_shows_what_training_ranker_and_evaluation_left(
    run: Path, trained: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("evaluate", run).exit_code == 0
    (record,) = read_records([run])
    (plan,) = record.plans
    assert list(plan.tasks) == list(trained.tasks)
    for task in plan.tasks.values():
        assert sum(task.by_length) == task.examples > 0
    assert plan.steps == max(step for step, _ in record.series("loss"))
    assert all(value > 0 for _, value in record.series("tokens_per_second"))
    assert all(0 < value <= 1 for _, value in record.series("useful_tokens"))
    assert all(0 < value < 100 for _, value in record.series("memory_gib"))
    assert record.ranked
    assert record.ranked.lines["ranker"].change is None
    assert "without model" in record.ranked.lines
    # It takes seconds to make, and is looked at elsewhere.
    monkeypatch.setattr(page, "chart_library", lambda: "")
    done = call("report", run)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"Report: {run / 'report.html'}"
    shown = (run / "report.html").read_text()
    ndcg = results(run / "evaluation")[0]["rankers"]["ranker"]["item"]["NDCG@10"]["value"]
    assert f"{ndcg:.4f}" in shown
    assert "Blue Mug, 12 oz" in shown


def test_without_the_ranker_the_model_is_what_it_was(run: Path, tmp_path: Path) -> None:
    assert call("evaluate", run).exit_code == 0
    done = call("evaluate", run, "--no-rank", "--output", tmp_path / "alone")
    assert done.exit_code == 0, done.output
    beside, alone = results(run / "evaluation")[0], results(tmp_path / "alone")[0]
    assert list(alone["rankers"]) == ["model", *BASELINES]
    assert alone["rankers"]["model"] == beside["rankers"]["model"]
    compared = json.loads(call("compare", run, tmp_path / "alone", "--json").stdout)[0]
    first, second = (results(folder)[1] for folder in (run / "evaluation", tmp_path / "alone"))
    for group in compared["by_reach"]:
        own = [n for n, row in enumerate(first) if row["reach"] == group["reach"]]
        hits = [[0 < lists[n]["item_rank"] <= 10 for n in own] for lists in (first, second)]
        found = group["differences"][0]
        assert group["rows"] == len(own)
        assert (found["first"], found["other"]) == pytest.approx(tuple(map(np.mean, hits)))
        assert found["low"] <= found["difference"] <= found["high"]
    assert sum(group["rows"] for group in compared["by_reach"]) == 12
    assert "follows last item" in call("compare", run, tmp_path / "alone").output


def test_a_long_history_is_read_as_far_as_evaluation_reads_it(run: Path) -> None:
    ranked = Recommender.load(run)
    longest = ranked.bundle.longest_history
    long = [str(place % 7) for place in range(longest + 9)]
    whole, latest = (
        [(item.item_id, item.score) for item in ranked.recommend([history], k=5)[0]]
        for history in (long, long[-longest:])
    )
    assert whole == latest
    # What the history excludes, all of it does.
    early = ["7", *["1"] * longest]
    left = ranked.recommend([early], k=9, exclude_history=True)[0]
    assert not {"1", "7"} & {item.item_id for item in left}


def test_recommendations_come_from_the_ranker(run: Path) -> None:
    ranked, alone = Recommender.load(run), Recommender.load(run, rank=False)
    first = ranked.recommend([["1", "2"], ["5"]], k=4)
    second = alone.recommend([["1", "2"], ["5"]], k=4)
    assert [[item.item_id for item in items] for items in first] != [
        [item.item_id for item in items] for items in second
    ]
    assert all(item.score >= 0 for item in first[0]), "weights of a mixture"
    assert all(item.score < 0 for item in second[0]), "log-probabilities"
    shown = call("recommend", run, "--history", "1,2", "-k", "4", "--json")
    assert [item["item_id"] for item in json.loads(shown.stdout)["items"]] == [
        item.item_id for item in first[0]
    ]
    told = call("recommend", run, "--history", "1,2", "-k", "4", "--json", "--no-rank")
    assert [item["item_id"] for item in json.loads(told.stdout)["items"]] == [
        item.item_id for item in second[0]
    ]


def test_restrictions_hold_for_all_sources(run: Path) -> None:
    ranked = Recommender.load(run)
    some = ranked.among(["0", "3", "6"])
    assert {item.item_id for item in some.recommend([["1", "2"]], k=8)[0]} <= {"0", "3", "6"}
    left = ranked.recommend([["1", "2"]], k=8, exclude_history=True)[0]
    assert not {"1", "2"} & {item.item_id for item in left}


def test_a_prompt_that_is_too_long_still_has_a_list(run: Path) -> None:
    recommender = Recommender.load(run)
    short = replace(recommender.bundle, cutoff_len=4)
    recommender.prompts = Prompts(short, load_tokenizer(str(run)))
    assert len(recommender.recommend([["1", "2"]], k=3)[0]) == 3


def test_targets_by_how_they_can_be_reached(trained: Config, run: Path) -> None:
    assert call("evaluate", run).exit_code == 0
    report, lists = results(run / "evaluation")
    groups = report["rankers"]["ranker"]["by_reach"]
    assert sum(group["rows"] for group in groups) == report["rows"]
    catalogue = read_bundle(run).catalogue
    rows = {split: load_split(trained.data, catalogue, split) for split in ("train", "test")}
    sequences = {}
    for row, user in enumerate(rows["train"].users.to_pylist()):
        whole = [*rows["train"].history[row].tolist(), int(rows["train"].target[row])]
        sequences[user] = max(sequences.get(user, []), whole, key=len)
    expected = []
    for row in range(len(rows["test"].target)):
        history, target = rows["test"].history[row].tolist(), int(rows["test"].target[row])
        beside = [set(items) for items in sequences.values() if target in items]
        follows = any((history[-1], target) in pairwise(items) for items in sequences.values())
        expected.append(
            0
            if target in history
            else 1
            if follows
            else 2
            if any(items & set(history) for items in beside)
            else 3
            if beside
            else 4
        )
    found = reached(rows["test"], Baselines.fit(rows["train"], None, len(catalogue.ids)))
    assert found.tolist() == expected
    assert [row["reach"] for row in lists] == [REACH_NAMES[place] for place in expected]


def test_the_command_says_what_each_source_adds(run: Path) -> None:
    done = call("rank", run)
    assert done.exit_code == 0, done.output
    for words in ("ranker: a weighted mean of sources", "without model", "weights of the mean:"):
        assert words in done.output
    told = json.loads(call("rank", run, "--json").stdout)
    assert told["lines"]["ranker"]["change"] is None
    assert told["lines"]["without model"]["change"] is not None


def test_it_is_fitted_again_where_its_options_changed(run: Path) -> None:
    config = load_config(run / "config.yaml")
    since = (run / FILE).stat().st_mtime_ns
    assert is_ranked(run, since, config.rank)
    assert not is_ranked(run, since + 1, config.rank)
    other = load_config(run / "config.yaml", ["rank.beams=3"])
    assert not is_ranked(run, since, other.rank)
    rank_after(other.model_copy(update={"output_dir": run, "rank": other.rank}))
    assert is_ranked(run, since, config.rank), "rank.fit is never"
    auto = other.rank.model_copy(update={"fit": "auto"})
    rank_after(other.model_copy(update={"output_dir": run, "rank": auto}))
    assert is_ranked(run, since, other.rank)


def test_it_is_fitted_again_by_another_version(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(run / "config.yaml")
    ranker = read_ranker(run, None)
    assert ranker
    with monkeypatch.context() as patch:
        patch.setattr(ranker_file, "ENTRY", "of a version to come")
        write_ranker(ranker, read_bundle(run).catalogue, run)
    assert not is_ranked(run, 0, config.rank)


def test_it_is_fitted_after_training_unless_it_is_turned_off(
    trained: Config, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained.output_dir, tmp_path / "again"))
    (folder / FILE).unlink()
    given = trained.model_copy(update={"output_dir": folder})
    assert rank_after(given) is None
    assert not (folder / FILE).exists()
    auto = given.model_copy(update={"rank": given.rank.model_copy(update={"fit": "auto"})})
    assert rank_after(auto) is not None
    assert (folder / FILE).read_bytes() == (trained.output_dir / FILE).read_bytes()


# --- beams ---


def beams_of(folder: Path) -> Any:
    return results(folder)[0]["settings"]["beams"]


def test_lists_are_as_wide_as_those_that_the_ranker_was_fitted_on(
    run: Path, tmp_path: Path
) -> None:
    keys = ("rank.sources=[model,transitions]", "rank.beams=3")
    told = json.loads(call("rank", run, *keys, "--json").stdout)
    out = tmp_path / "valid"
    call("evaluate", run, "--split", "valid", "--no-rank", "--beams", 3, "--output", out)
    listed = [row["item_rank"] > 0 for row in results(out, "valid")[1]]
    assert 0 < np.mean(listed) < 1
    assert told["lines"]["model"]["hr"]["value"] == pytest.approx(np.mean(listed))
    done = call("evaluate", run)
    assert beams_of(run / "evaluation") == 3
    assert "warning" not in done.output
    assert "k is 4, but the search has only 3 beams" in message(
        "recommend", run, "--history", "1,2", "-k", 4
    )
    ranked = Recommender.load(run)
    assert ranked.recommend([["1", "2"]], k=3) == ranked.recommend([["1", "2"]], k=3, beams=3)
    later = write_events(tmp_path / "later.csv", [("new", "4", 0)])
    assert call("rank", run, "--events", later).exit_code == 0
    ranker = read_ranker(run, None)
    assert ranker is not None
    assert ranker.beams == 3


def test_another_number_of_beams_is_used_and_warned_of(run: Path, tmp_path: Path) -> None:
    done = call("evaluate", run, "--beams", 3)
    assert beams_of(run / "evaluation") == 3
    said = " ".join(done.output.split())
    assert "the ranker was fitted on the model's lists of 50 beams (rank.beams)" in said
    assert "lists of 3; without --beams" in said
    said = " ".join(call("recommend", run, "--history", "1", "-k", 2, "--beams", 3).output.split())
    assert "lists of 3; without --beams" in said
    # Without the ranker there is nothing to warn of.
    done = call("evaluate", run, "--beams", 3, "--no-rank", "--output", tmp_path / "alone")
    assert "warning" not in done.output
    assert call("evaluate", run, "--no-rank", "--output", tmp_path / "wide").exit_code == 0
    assert beams_of(tmp_path / "wide") == 50


def test_a_server_follows_the_ranker_of_each_model_it_loads(run: Path) -> None:
    engine = engine_of(run)
    assert engine.served.options.width == 50
    change_config(run, rank={"beams": 3})
    rank_run(run)
    Reloader(engine, lambda: Recommender.load(run, device="cpu")).reload()
    assert engine.served.options.width == 3
    asked = Engine(Recommender.load(run, device="cpu"), RankOptions(5))
    assert asked.served.options.width == 5
    for each in (engine, asked):
        each.close()


def test_a_ranker_without_the_model_needs_no_lists_of_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_config(run, rank={"sources": ["transitions"]})
    monkeypatch.setattr(Recommender, "lists", lambda *_: pytest.fail("decoded"))
    assert "without model" not in rank_run(run).lines
    monkeypatch.undo()
    done = call("evaluate", run)
    assert list(results(run / "evaluation")[0]["rankers"]) == ["ranker", "model", *BASELINES]
    assert beams_of(run / "evaluation") == 50
    change_config(run, rank={"sources": ["transitions"], "beams": 3})
    assert "beams has no effect without the source model" in message("rank", run)
    assert done.exit_code == 0, done.output


def test_options_of_the_run_that_others_leave_idle_are_no_mistake(run: Path) -> None:
    change_config(run, rank={"beams": 3})
    assert given_options(run, []).beams == 3
    assert given_options(run, ["rank.sources=[transitions]"]).used == ("transitions",)
    assert given_options(run, ["rank.sources=[transitions,model]"]).beams == 3
    assert given_options(run, ["rank.beams=4"]).beams == 4
    # Given now, it is one.
    with pytest.raises(UserError, match="beams has no effect without the source model"):
        given_options(run, ["rank.sources=[transitions]", "rank.beams=3"])
    told = json.loads(call("rank", run, "rank.sources=[transitions]", "--json").stdout)
    assert told["options"]["sources"] == ["transitions"]


# --- later events ---


def write_events(path: Path, events: list[tuple[str, str, int]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        writer.writerows([(user, item, 1_600_000_000 + 60 * time) for user, item, time in events])
    return path


def test_later_events_are_counted_in(run: Path, tmp_path: Path) -> None:
    before = read_ranker(run, None)
    assert before is not None
    # Everybody who had item 4 goes on to item 0 now.
    events = [(f"new{user}", item, time) for user in range(9) for time, item in enumerate("40")]
    file = write_events(tmp_path / "later.csv", [*events, ("new0", "gone", 5)])
    done = call("rank", run, "--events", file)
    assert done.exit_code == 0, done.output
    assert "18 later events are counted in; 1 of unknown items are left out" in done.output
    after = read_ranker(run, read_bundle(run).catalogue)
    assert after is not None
    assert after.scorer == before.scorer
    first, second = (
        ranker.sources["transitions"].direct.toarray()[4, 0]  # type: ignore[attr-defined]
        for ranker in (before, after)
    )
    assert second > first
    recommended = Recommender.load(run).recommend([["4"]], k=2)[0]
    assert "0" in {item.item_id for item in recommended}


def test_rows_that_were_counted_in_measure_no_ranker(run: Path, tmp_path: Path) -> None:
    rows = tmp_path / "test.csv"
    config = load_config(run / "config.yaml")
    assert config.data.test
    shutil.copyfile(config.data.test, rows)
    file = write_events(tmp_path / "later.csv", [("new", "4", 0)])
    assert call("rank", run, "--events", file).exit_code == 0
    for split in ("valid", "test"):
        said = message("evaluate", run, "--split", split)
        assert f"`sidtune rank --events` counted the {split} rows into the ranker" in said
    assert call("evaluate", run, "--no-rank", "--output", tmp_path / "model").exit_code == 0
    assert call("evaluate", run, "--rows", rows, "--output", tmp_path / "rows").exit_code == 0
    assert call("rank", run).exit_code == 0
    assert call("evaluate", run).exit_code == 0


def test_figures_of_rows_that_the_ranker_was_fitted_on_are_warned_of(run: Path) -> None:
    said = " ".join(call("evaluate", run, "--split", "valid").output.split())
    assert "the ranker was fitted on validation rows, so its figures here are too high" in said
    for others in (("--split", "valid", "--no-rank", "--output", run / "model"), ()):
        assert "fitted on validation" not in call("evaluate", run, *others).output


def test_later_events_follow_what_a_user_had(run: Path, tmp_path: Path, trained: Config) -> None:
    catalogue = read_bundle(run).catalogue
    test = load_split(trained.data, catalogue, "test")
    user, last = test.users[0].as_py(), int(test.target[0])
    new = next(item for item in range(8) if item != last)
    file = write_events(tmp_path / "later.csv", [(user, str(new), 0)])
    before = read_ranker(run, None)
    assert call("rank", run, "--events", file).exit_code == 0
    after = read_ranker(run, None)
    assert before is not None
    assert after is not None
    first, second = (
        ranker.sources["transitions"].direct.toarray()  # type: ignore[attr-defined]
        for ranker in (before, after)
    )
    assert second[last, new] > first[last, new]
    rest = np.delete(np.arange(8), last)
    assert second[rest] == pytest.approx(first[rest]), "nothing else is counted twice"


def test_mistakes(run: Path, tmp_path: Path) -> None:
    unknown = write_events(tmp_path / "unknown.csv", [("u1", "gone", 0)])
    before = (run / FILE).read_bytes()
    assert "no event is of an item" in message("rank", run, "--events", unknown)
    assert (run / FILE).read_bytes() == before
    assert "only keys of the section rank" in message("rank", run, "training.epochs=2")
    assert "rank.beams=3 has no effect with --events" in message(
        "rank", run, "rank.beams=3", "--events", unknown
    )
    assert "--items has no effect" in message("rank", run, "--items", unknown)
    (run / FILE).unlink()
    assert "has no ranker" in message("rank", run, "--events", unknown)
    (run / "config.yaml").unlink()
    assert "has no config.yaml" in message("rank", run)
    assert "no such folder" in message("rank", tmp_path / "nowhere")
