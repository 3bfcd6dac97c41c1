"""Training and evaluation from whole histories and SIDs alone, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.asking import call, message, results
from tests.rankers import SIMPLE
from tests.running import losses, metrics
from tests.tiny_data import TITLES, tiny_tree, write_rows

from sidtune.checks.run import refuse_errors
from sidtune.data import leave_one_out
from sidtune.inputs import Inputs
from sidtune.tasks.config_file import load_config

TRAINING = {"epochs": 1, "batch_size": 16, "learning_rate": 0.01, "warmup": 2}


def walks() -> dict[str, list[int]]:
    """What each user had; the last item of the shop is never among it, and two users have too
    little to hold out.
    """
    long = {
        f"u{user}": [(user * 3 + step * (1 + user % 2)) % 7 for step in range(6 + user % 3)]
        for user in range(12)
    }
    return {**long, "two": [4, 5], "one": [6]}


def config_file(folder: Path, data: dict[str, Any], **sections: Any) -> Path:
    """A configuration over whole histories, unless `data` says otherwise, with a base that never
    saw a title.
    """
    folder.mkdir(exist_ok=True)
    base = folder / "base"
    if not base.exists():
        done = call("new-model", base, "--hidden", 32, "--layers", 2, "--vocab", 400)
        assert done.exit_code == 0, done.output
    tree = tiny_tree(folder, training=TRAINING, model={"base": str(base)}, **sections)
    tree["data"] = {"index": tree["data"]["index"], **data}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def whole(folder: Path, **data: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    path = folder / "shop.inter.json"
    path.write_text(json.dumps(walks()))
    return {"interactions": str(path), **data}


def row_files(folder: Path, file: Path) -> dict[str, Any]:
    """The same interactions row by row, in MiniOneRec's files."""
    index = json.loads(load_config(file).data.index.read_text())
    rows: dict[str, list[tuple[str, list[int], int]]] = {"train": [], "valid": [], "test": []}
    for user, walk in walks().items():
        rest = walk if len(walk) < 3 else walk[:-2]
        rows["train"] += [(user, rest[:cut], rest[cut]) for cut in range(1, len(rest))]
        if len(walk) >= 3:
            rows["valid"].append((user, walk[:-2], walk[-2]))
            rows["test"].append((user, walk[:-1], walk[-1]))
    for split, made in rows.items():
        write_rows(folder / f"{split}.csv", made, index)
    return {split: str(folder / f"{split}.csv") for split in rows}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a finished run."""
    folder = tmp_path_factory.mktemp("whole") / "a"
    file = config_file(folder, whole(folder))
    done = call("train", file)
    assert done.exit_code == 0, (done.output, done.exception)
    return file


def test_check_says_what_the_histories_are(tmp_path: Path) -> None:
    done = call("check", config_file(tmp_path, whole(tmp_path)))
    text = " ".join(done.output.split())
    assert done.exit_code == 0, text
    count = sum(map(len, walks().values()))
    assert (
        f"14 users, {count} interactions, 1 to 8 per user (mean {count / 14:.1f}); 1 of 8 items"
        " have no interaction" in text
    )
    assert "2 users have fewer than 3 interactions and are used for training only" in text
    for split, rows in (("train", 49), ("valid", 12), ("test", 12)):
        assert f"shop.inter.json, {split}: {rows} rows, histories of" in text
    assert "to exclude them from training" not in text, "nobody repeats an item"


def test_every_split_is_ranked(trained: Path) -> None:
    config = load_config(trained)
    assert list(config.tasks) == ["sid_next"]
    for split, place in (("valid", -2), ("test", -1)):
        done = call("evaluate", config.output_dir, "--split", split)
        assert done.exit_code == 0, (done.output, done.exception)
        report, rows = results(config.output_dir / "evaluation", split)
        assert [(row["user_id"], row["target"]) for row in rows] == [
            (user, str(walk[place])) for user, walk in walks().items() if len(walk) >= 3
        ]
        assert (
            report["settings"]["rows"]
            == report["settings"]["train"]
            == str(config.data.interactions)
        )
        assert report["settings"]["history"] == 20
        assert set(report["rankers"]) == {"model", *SIMPLE}


def test_the_same_as_from_files_of_rows(trained: Path, tmp_path: Path) -> None:
    file = config_file(tmp_path / "b", row_files(tmp_path, trained))
    assert call("train", file).exit_code == 0
    one, other = load_config(trained), load_config(file)
    assert losses(one) == losses(other)
    assert metrics(one) == metrics(other)
    assert call("evaluate", one.output_dir, "--output", tmp_path / "whole").exit_code == 0
    assert call("evaluate", other.output_dir, "--output", tmp_path / "rows").exit_code == 0
    (first, lists), (second, other_lists) = results(tmp_path / "whole"), results(tmp_path / "rows")
    assert first["rankers"] == second["rankers"], (
        "baselines and training users come from the same interactions"
    )
    assert lists == other_lists


def test_files_of_rows_replace_splits(trained: Path, tmp_path: Path) -> None:
    config, files = load_config(trained), row_files(tmp_path, trained)
    run = config.output_dir
    done = call("evaluate", run, "--rows", files["test"], "--output", tmp_path / "a")
    assert done.exit_code == 0, (done.output, done.exception)
    settings = results(tmp_path / "a")[0]["settings"]
    assert (settings["rows"], settings["train"]) == (files["test"], str(config.data.interactions))
    said = message("evaluate", run, "--rows", config.data.interactions, "--output", tmp_path / "b")
    assert "unknown file type '.json'" in said
    assert "data.interactions" in said


def test_recommended_items_have_no_titles(trained: Path) -> None:
    run = load_config(trained).output_dir
    items = json.loads(call("recommend", run, "--history", "3,1", "-k", 3, "--json").stdout)[
        "items"
    ]
    assert [item["title"] for item in items] == ["", "", ""]
    shown = call("recommend", run, "--history", "3,1", "-k", 3).output
    for item in items:
        assert any(
            item["sid"] in line and item["item_id"] in line.split() for line in shown.splitlines()
        )
    assert not any(title in shown for title in TITLES)


def test_preview_shows_growing_histories(trained: Path) -> None:
    examples = json.loads(call("preview", trained, "--json", "-n", 3).stdout)
    index = json.loads(load_config(trained).data.index.read_text())
    for row, example in enumerate(examples):
        items = walks()["u0"][: row + 1]
        assert (
            "".join("".join(index[str(item)]) for item in items) == example["segments"][1]["text"]
        )


def test_templates_that_ask_for_titles_are_refused(tmp_path: Path) -> None:
    wording = tmp_path / "mine.yaml"
    prompt = ["{history_sids}", " that is ", "{history_titles}", ":"]
    wording.write_text(
        yaml.safe_dump({"sid_next": {"prompt": prompt, "response": ["{target_sid}"]}})
    )
    file = config_file(tmp_path, whole(tmp_path), template={"file": str(wording)})
    for command in ("train", "preview"):
        said = message(command, file)
        assert f"{wording}: sid_next uses {{history_titles}}, but data.items is not given" in said
    assert call("check", file).exit_code == 2


def test_a_resumed_run_has_the_same_histories(tmp_path: Path) -> None:
    def identity(**data: Any) -> dict[str, Any]:
        return Inputs(
            load_config(config_file(tmp_path, whole(tmp_path, **data)))
        ).mixture.identity()

    long, short = identity(), identity(history=2)
    assert {name for name in long if long[name] != short[name]} == {"task sid_next"}
    path = load_config(config_file(tmp_path, whole(tmp_path))).data.interactions
    assert path is not None
    before = Inputs(
        load_config(config_file(tmp_path, {"interactions": str(path)}))
    ).mixture.identity()
    path.write_text(json.dumps({**walks(), "new": [1, 2, 3]}))
    after = Inputs(
        load_config(config_file(tmp_path, {"interactions": str(path)}))
    ).mixture.identity()
    assert before["data.interactions"] != after["data.interactions"]


def test_a_second_start_reads_no_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(config_file(tmp_path, whole(tmp_path)))

    def start() -> None:
        inputs = Inputs(config)
        refuse_errors(inputs)
        assert inputs.mixture.train()
        assert inputs.mixture.valid()
        assert inputs.bundle.users.sum()

    def refuse(path: Path) -> None:
        raise AssertionError("histories were read")

    start()
    monkeypatch.setattr(leave_one_out, "read_json_object", refuse)
    start()
    assert config.data.interactions is not None
    config.data.interactions.write_text(json.dumps({**walks(), "new": [1, 2, 3]}))
    with pytest.raises(AssertionError, match="histories were read"):
        start()


def test_broken_histories_are_said_once(tmp_path: Path) -> None:
    file = config_file(tmp_path, whole(tmp_path))
    path = load_config(file).data.interactions
    assert path is not None
    path.write_text('{"u": [1, 2, 99], "v": [1, 2, 3, 4]}')
    done = call("check", file)
    assert done.exit_code == 2
    assert (
        " ".join(done.output.split()).count("1 users have items without a SID: 99 (first user u)")
        == 1
    )
    path.unlink()
    assert "data.interactions: no such file" in message("train", file)
