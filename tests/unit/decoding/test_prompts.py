"""The prompt at evaluation is the training prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base
from transformers import AddedToken

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.decoding.prompts import Prompts
from sidtune.inputs import Inputs
from sidtune.model.new_base import create_base
from sidtune.runs.bundle import read_bundle, write_bundle
from sidtune.tasks import TASKS
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.templates import load_templates

WORDINGS: dict[str, Any] = {
    "ours": None,
    "whole": {
        "prompt": ["User: {history_sids}\n\nAnswer:\n"],
        "separator": ", ",
        "response": ["{target_sid}\n"],
    },
    "text around the answer": {
        "prompt": ["{history_titles}", "\n{{next}}: ", "{history_sids}", "?"],
        "separator": "; ",
        "response": ["The item ", "{target_sid}", ", of course."],
    },
}


def asked(config: Config) -> tuple[Inputs, Prompts]:
    """Prompts from the files of a bundle, as `evaluate` reads them."""
    inputs = Inputs(config)
    folder = config.output_dir
    folder.mkdir(parents=True)
    write_bundle(inputs.bundle, folder)
    return inputs, Prompts(read_bundle(folder), inputs.vocabulary.tokenizer)


def assert_training_prompts(inputs: Inputs, prompts: Prompts) -> int:
    """Every training example is its prompt, the tokens of its SID and the closing; returns how many
    were compared.
    """
    encoder, catalogue = inputs.mixture.encoder, inputs.catalogue
    (part,) = inputs.mixture.parts("sid_next", "train", TASKS["sid_next"].options())
    encoded = encoder.encode(part)
    rows = inputs.mixture.source("train").rows
    ids, kept = prompts.encode(rows.history.take(encoded.rows))
    assert kept.tolist() == list(range(len(encoded.rows)))
    for place, row in enumerate(encoded.rows):
        prompt = ids[place].tolist()
        sid = [prompts.token_ids[token] for token in catalogue.sids[rows.target[row]]]
        whole = encoded.input_ids[place].tolist()
        assert whole[: len(prompt) + len(sid) + 1] == [*prompt, *sid, prompts.closing]
    return len(encoded.rows)


@pytest.mark.parametrize("style", ["plain", "chat"])
@pytest.mark.parametrize("wording", WORDINGS)
def test_it_is_the_training_prompt_to_the_token(tmp_path: Path, wording: str, style: str) -> None:
    template: dict[str, Any] = {"format": style}
    if WORDINGS[wording]:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"sid_next": WORDINGS[wording]}))
        template["file"] = str(tmp_path / "mine.yaml")
    create_base(tmp_path / "base", ["some text to learn from"] * 9, hidden=32, layers=1, vocab=300)
    inputs, prompts = asked(tiny_config(tmp_path, template=template))
    assert assert_training_prompts(inputs, prompts) > 30


@pytest.mark.parametrize("kind", ["byte_bos", "always", "prepend"])
def test_tokenizers_that_put_something_in_front_do_so_here_too(tmp_path: Path, kind: str) -> None:
    make_base(tmp_path / "base", kind=kind)
    assert assert_training_prompts(*asked(tiny_config(tmp_path))) > 30


def test_old_items_are_left_out_as_in_training(tmp_path: Path) -> None:
    inputs, prompts = asked(tiny_config(tmp_path, encoding={"cutoff_len": 30}))
    (part,) = inputs.mixture.parts("sid_next", "train", TASKS["sid_next"].options())
    assert inputs.mixture.encoder.encode(part).truncated > 0
    assert assert_training_prompts(inputs, prompts) > 30


@pytest.mark.parametrize("task", ["sid_next", "sid_sequence"])
@pytest.mark.parametrize(
    ("bound", "lengths", "longest"), [({}, [4, 6], 7), ({"history": 2}, [2, 2], 2)]
)
def test_no_more_items_are_read_than_training_read(
    tmp_path: Path, task: str, bound: dict[str, int], lengths: list[int], longest: int
) -> None:
    """Positions beyond the longest row, its target included, were never trained, nor those beyond
    `data.history`.
    """
    inputs, prompts = asked(tiny_config(tmp_path, tasks={task: None}, data=bound))
    splits = [
        inputs.mixture.source(split).rows.history.lengths.max() for split in ("train", "valid")
    ]
    assert splits == lengths
    newest = [0, 1, 2, 3, 4, 5, 6][-longest:]
    ids, _ = prompts.encode(Ragged.from_lists([[7, 7, *newest], newest, newest[1:]]))
    assert ids[0].tolist() == ids[1].tolist() != ids[2].tolist()


def test_what_does_not_fit_is_not_asked(tmp_path: Path) -> None:
    wording = {
        "sid_next": {"prompt": ["{history_sids}", "{history_titles}"], "response": ["{target_sid}"]}
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(wording))
    _, prompts = asked(
        tiny_config(
            tmp_path, template={"file": str(tmp_path / "mine.yaml")}, encoding={"cutoff_len": 16}
        )
    )
    ids, rows = prompts.encode(Ragged.from_lists([[0], [6], [0]]))
    assert len(ids) == len(rows) < 3


def test_of_several_wordings_the_first_is_asked(tmp_path: Path) -> None:
    first, second = (
        {"prompt": [f"{name}: ", "{history_sids}"], "response": ["{target_sid}"]}
        for name in ("a", "b")
    )
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"sid_next": [first, second]}))
    inputs, prompts = asked(tiny_config(tmp_path, template={"file": str(tmp_path / "mine.yaml")}))
    ids, _ = prompts.encode(Ragged.from_lists([[0], [1, 2], [3]]))
    opening = inputs.vocabulary.tokenizer("a: ").input_ids
    assert all(ids[row][: len(opening)].tolist() == opening for row in range(3))


def test_a_tokenizer_of_another_index_is_refused(tmp_path: Path) -> None:
    inputs = Inputs(tiny_config(tmp_path))
    base = Inputs(
        tiny_config(tmp_path, data={"index": str(renamed(tmp_path))})
    ).vocabulary.tokenizer
    with pytest.raises(
        UserError, match=r"does not know 1 of the catalogue's \d+ SID tokens, such as <a_0>"
    ):
        Prompts(inputs.bundle, base)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("</s>", "1 SID tokens are special tokens of the tokenizer: '</s>'"),
        ("<turn>", "are used in the .* chat template"),
    ],
)
def test_tokens_with_a_role_are_no_sid_tokens(tmp_path: Path, token: str, message: str) -> None:
    """Training refuses them; files beside a model can be changed later."""
    inputs = Inputs(tiny_config(tmp_path))
    tokenizer, catalogue = inputs.vocabulary.tokenizer, inputs.catalogue
    tokenizer.add_tokens([AddedToken("<turn>", special=True), AddedToken("<none>", special=True)])
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m['content'] }}{% endfor %}"

    def asked(last: str) -> Prompts:
        sids = [(*sid[:-1], last) for sid in catalogue.sids]
        return Prompts(replace(inputs.bundle, catalogue=replace(catalogue, sids=sids)), tokenizer)

    with pytest.raises(UserError, match=message):
        asked(token)
    assert asked("<none>").token_ids["<none>"] == tokenizer.convert_tokens_to_ids("<none>")


def test_a_sequence_has_no_sids_that_begin_others(tmp_path: Path) -> None:
    inputs = Inputs(tiny_config(tmp_path))
    catalogue = inputs.catalogue
    sids = [catalogue.sids[0], catalogue.sids[0][:1], *catalogue.sids[2:]]
    bundle = replace(inputs.bundle, catalogue=replace(catalogue, sids=sids))
    Prompts(bundle, inputs.vocabulary.tokenizer)
    template = load_templates()["sid_sequence"][0]
    with pytest.raises(UserError, match="is a prefix of"):
        Prompts(
            replace(bundle, task="sid_sequence", template=template), inputs.vocabulary.tokenizer
        )


def renamed(folder: Path) -> Path:
    """The shop's index with one token called otherwise."""
    path = folder / "data" / "renamed.index.json"
    path.write_text((folder / "data" / "shop.index.json").read_text().replace("<a_0>", "<x_0>"))
    return path


def test_on_real_data(amazon: Path, tmp_path: Path) -> None:
    files = {
        "items": "Industrial_and_Scientific.item.json",
        "index": "Industrial_and_Scientific.index.json",
    }
    files |= {"train": "train.csv", "valid": "valid.csv"}
    tree = {
        "output_dir": str(tmp_path / "run"),
        "model": {"base": str(make_base(tmp_path / "base"))},
        "data": {name: str(amazon / file) for name, file in files.items()} | {"sample": 500},
        "encoding": {"cutoff_len": 110},
    }
    inputs, prompts = asked(parse_config(tree, "test"))
    assert assert_training_prompts(inputs, prompts) == 500
    assert np.ptp(prompts.encode(inputs.mixture.source("valid").rows.history)[0].lengths) > 0
