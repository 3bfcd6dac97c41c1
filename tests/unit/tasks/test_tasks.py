"""Every task, on a shop whose right answer is obvious: what the model reads, and which part of it
is the label.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_data import TITLES, tiny_config

from sidtune.data.rows import Split
from sidtune.encoding.build import Mixture, load_catalogue
from sidtune.tasks import TASKS
from sidtune.tasks.config import Config
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import extend_vocabulary

# The first training row is user 0's [0] → 1; the first item is 0; the first record is [0, 3] → 2.
OPENING = "A user's interactions, oldest first:\n"
REVERSED_OPENING = "A user's interactions, newest first:\n"
TITLE_OPENING = "A user's items by title, oldest first:\n"
EXPECTED = {
    "sid_next": {"sid_next": (f"{OPENING}<a_0><b_0><c_0>\nThe next item is:\n", "<a_1><b_0><c_1>")},
    "sid_sequence": {"sid_sequence": (OPENING, "<a_0><b_0><c_0><a_1><b_0><c_1><a_2><b_0><c_2>")},
    "sid_sequence_reversed": {
        "sid_sequence_reversed": (REVERSED_OPENING, "<a_2><b_0><c_2><a_1><b_0><c_1><a_0><b_0><c_0>")
    },
    "text_neighbours": {
        "sid_sequence": (OPENING, "<a_0><b_0><c_0><a_2><b_2><c_8>"),
        "sid_sequence_reversed": (REVERSED_OPENING, "<a_2><b_2><c_8><a_0><b_0><c_0>"),
    },
    "item_feature": {
        "item_feature.sid_to_title": ("Item <a_0><b_0><c_0> has the title:\n", "Blue Mug, 12 oz"),
        "item_feature.title_to_sid": (
            "The item with the title\nBlue Mug, 12 oz\nis:\n",
            "<a_0><b_0><c_0>",
        ),
    },
    "fusion": {
        "fusion.title": (f"{OPENING}<a_0><b_0><c_0>\nThe title of the next item is:\n", "Red Tent"),
        "fusion.description": (
            f"{OPENING}<a_0><b_0><c_0>\nThe next item is described as:\n",
            "A red tent.",
        ),
    },
    "title_next": {
        "title_next": (
            f"{TITLE_OPENING}Blue Mug, 12 oz\nThe title of the next item is:\n",
            "Red Tent",
        )
    },
    "title_to_sid": {
        "title_to_sid": (f"{TITLE_OPENING}Blue Mug, 12 oz\nThe next item is:\n", "<a_1><b_0><c_1>")
    },
    "preference": {
        "preference": (
            f"{OPENING}<a_0><b_0><c_0><a_0><b_1><c_3>\nWhat the user prefers, and the next item:\n",
            "likes oak\n<a_2><b_0><c_2>",
        )
    },
    "preference_to_sid": {
        "preference_to_sid": (
            (
                f"{OPENING}<a_0><b_0><c_0><a_0><b_1><c_3>\nThe user's preferences:\nlikes oak\nThe"
                " next item is:\n"
            ),
            "<a_2><b_0><c_2>",
        )
    },
    "instruction": {"instruction": ("Say <a_0>.", "No </s> here")},
}
ALL: dict[str, Any] = dict.fromkeys(TASKS) | {
    "fusion": {"target": "both"},
    "text_neighbours": {"neighbours": 1},
}


def record(history: list[int], target: int, split: str) -> dict[str, Any]:
    context = {"history_items": history, "target_item": target}
    return {"user": "p", "user_preference": "likes oak", "split": split, "context": context}


def mixture(folder: Path, **sections: Any) -> Mixture:
    preferences, instructions = folder / "p.json", folder / "i.jsonl"
    preferences.write_text(
        json.dumps([record([0, 3], 2, "train"), record([4], 5, "valid"), record([1], 2, "train")])
    )
    instructions.write_text(json.dumps({"prompt": "Say <a_0>.", "response": "No </s> here"}) + "\n")
    files = {"preferences": str(preferences), "instructions": str(instructions)}
    config = tiny_config(folder, **{"tasks": ALL, "data": files, **sections})
    add_item(config, "8", "Blue Mug, 16 oz", ["<a_2>", "<b_2>", "<c_8>"])
    return mixed(config)


def add_item(config: Config, item: str, title: str, sid: list[str]) -> None:
    """An item of the catalogue that no row holds."""
    assert config.data.items is not None
    for file, value in ((config.data.items, {"title": title}), (config.data.index, sid)):
        file.write_text(json.dumps(json.loads(file.read_text()) | {item: value}))


def mixed(config: Config) -> Mixture:
    catalogue = load_catalogue(config)
    return Mixture(
        config,
        catalogue,
        extend_vocabulary(load_tokenizer(config.model.base), catalogue.sid_tokens),
    )


@pytest.mark.parametrize("name", TASKS)
def test_what_the_model_reads(tmp_path: Path, name: str) -> None:
    made = mixture(tmp_path)
    task, options = TASKS[name], made.config.task_options()[name]
    parts = made.parts(name, "train", options)
    assert {part.form for part in parts} == set(task.forms) == set(EXPECTED[name])
    tokenizer = made.vocabulary.tokenizer
    for part in parts:
        assert len(part) == task.size(made.source("train")) > 0
        assert part.rows.tolist() == sorted(part.rows.tolist())
        encoded = made.encoder.encode(part)
        (start, *_, end), ids = encoded.label_spans[0].tolist(), encoded.input_ids[0].tolist()
        prompt, response = EXPECTED[name][part.form]
        assert tokenizer.decode(ids[:start]) == prompt
        assert tokenizer.decode(ids[start:end]) == response + (
            "" if TASKS[name].is_sequence else "</s>"
        )
        assert end == len(ids)


@pytest.mark.parametrize("name", TASKS)
def test_sampling_takes_that_many_rows_by_seed(tmp_path: Path, name: str) -> None:
    made = mixture(tmp_path)
    options = made.config.task_options()[name].model_copy(update={"sample": 1})
    one, same = (
        [part.rows.tolist() for part in made.parts(name, "train", options)] for _ in range(2)
    )
    assert one == same
    assert all(len(rows) == 1 for rows in one)


def test_sids_of_instructions_are_text_or_tokens(tmp_path: Path) -> None:
    read = {}
    for sid_tokens in (True, False, None):
        made = mixture(tmp_path, tasks={"instruction": {"sid_tokens": sid_tokens}})
        (task,) = made.train()
        ids, _ = task[0]
        read[sid_tokens] = ids.tolist()
        tokenizer = made.vocabulary.tokenizer
        assert tokenizer.decode(ids.tolist()) == "Say <a_0>.No </s> here</s>"
        assert ids.tolist().count(tokenizer.eos_token_id) == 1, "the one that closes the response"
        assert (tokenizer.convert_tokens_to_ids("<a_0>") in ids.tolist()) == bool(sid_tokens)
    assert read[False] == read[None], (
        "encoded anew when the option changes, from the same cache folder"
    )
    assert read[True] != read[False]


def test_sampling_follows_the_seed(tmp_path: Path) -> None:
    def drawn(seed: int) -> list[int]:
        made = mixed(tiny_config(tmp_path, seed=seed, data={"sample": 5}))
        (part,) = made.parts("sid_next", "train", made.config.task_options()["sid_next"])
        return part.rows.tolist()

    assert len(drawn(1)) == 5
    assert drawn(1) == drawn(1) != drawn(2)


def test_the_sample_of_the_data_is_of_training_alone(tmp_path: Path) -> None:
    made = mixed(
        tiny_config(tmp_path, data={"sample": 5}, tasks={"sid_next": None, "fusion": None})
    )
    assert [len(task) for task in made.train()] == [5, 5]
    assert [len(task) for task in made.valid()] == [12, 12]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_histories_keep_their_latest_items(tmp_path: Path, split: Split) -> None:
    whole = mixed(tiny_config(tmp_path)).source(split).rows
    rows = mixed(tiny_config(tmp_path, data={"history": 2})).source(split).rows
    assert rows.target.tolist() == whole.target.tolist()
    assert [
        history.tolist() for history in map(rows.history.__getitem__, range(len(rows.target)))
    ] == [
        history[-2:].tolist()
        for history in map(whole.history.__getitem__, range(len(whole.target)))
    ]


def test_colliding_items_have_one_example_each(tmp_path: Path) -> None:
    made = mixture(tmp_path)
    forward = made.parts("item_feature", "train", made.config.task_options()["item_feature"])[0]
    encoded = made.encoder.encode(forward)
    texts = [
        made.vocabulary.tokenizer.decode(encoded.input_ids[row].tolist())
        for row in range(len(forward))
    ]
    prompt = "Item <a_0><b_2><c_6> has the title:\n"
    assert [text.removeprefix(prompt) for text in texts if text.startswith(prompt)] == [
        f"{t}</s>" for t in TITLES[-2:]
    ]


@pytest.mark.parametrize("directions", ["sid_to_title", "title_to_sid", "one"])
def test_directions(tmp_path: Path, directions: str) -> None:
    made = mixture(tmp_path, tasks={"item_feature": {"directions": directions}})
    parts = made.parts("item_feature", "train", made.config.task_options()["item_feature"])
    if directions == "one":
        drawn = [part.rows.tolist() for part in parts]
        assert sorted(drawn[0] + drawn[1]) == list(range(9))
        assert all(drawn)
    else:
        assert [part.form for part in parts] == [f"item_feature.{directions}"]


def test_dedup_skips_repeats_in_training_alone(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, data={"dedup": True})
    for path in (config.data.train, config.data.valid):
        lines = path.read_text().splitlines()
        path.write_text(
            "\n".join([*lines, "r,['x'],x,[5],5,['s'],s", "r,['x'],x,\"[5, 6]\",5,['s'],s"]) + "\n"
        )
    made = mixed(config)
    last_train = made.source("train").rows
    assert last_train.users.to_pylist().count("r") == 1
    assert made.source("valid").rows.users.to_pylist().count("r") == 2


def test_splits_of_preferences(tmp_path: Path) -> None:
    made = mixture(tmp_path)
    assert made.source("train").preferences.num_rows == 2
    assert made.source("valid").preferences.num_rows == 1
    assert made.source("valid").instructions.num_rows == 0


def test_validation_tasks_and_their_caps(tmp_path: Path) -> None:
    made = mixture(tmp_path, eval={"max_rows": 7, "task_rows": 3})
    counts = {task.name: len(task) for task in made.valid()}
    assert next(iter(counts)) == "sid_next"
    assert counts["sid_next"] == 7
    assert counts["title_next"] == 3
    assert counts["fusion"] == counts["item_feature"] == 6, "three rows, both forms"
    assert "instruction" not in counts
    assert [len(made.valid()[0]), counts["preference"]] == [7, 1]


def test_a_task_without_examples_is_refused(tmp_path: Path) -> None:
    from sidtune.base.errors import UserError

    with pytest.raises(UserError, match="task sid_next has no training example"):
        mixed(
            tiny_config(tmp_path, encoding={"cutoff_len": 8, "cache_dir": str(tmp_path / "cache")})
        ).train()


def test_weights_do_not_change_the_encoding(tmp_path: Path) -> None:
    first = mixed(tiny_config(tmp_path, tasks={"sid_next": {"weight": 1}})).train()[0]
    second = mixed(tiny_config(tmp_path, tasks={"sid_next": {"weight": 3}})).train()[0]
    assert first.folder == second.folder
    assert np.array_equal(first.lengths, second.lengths)
