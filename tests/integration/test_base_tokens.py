"""Bases whose tokenizer knows SID tokens already: as special tokens, or without rows in
the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.asking import call, plainly_ranked
from tests.running import dies, losses, run
from tests.tiny_data import TITLES, tiny_config
from tests.tiny_models import make_base
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer

from sidtune.checks.run import run_checks
from sidtune.encoding.build import load_catalogue
from sidtune.files.weight_files import load_weights
from sidtune.inputs import Inputs
from sidtune.model.load import load_model
from sidtune.tasks.config import Config

SHORT = {"max_steps": 6, "batch_size": 16}


def with_tokens(tmp_path: Path, special: bool, rows: int | None, **sections: Any) -> Config:
    """A configuration whose base knows every SID token of the shop, and has so many rows (None: one
    for each token).
    """
    config = tiny_config(tmp_path, training=SHORT, **sections)
    base = Path(config.model.base)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    sids = load_catalogue(config).sid_tokens
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token in sids])
    if special:
        tokenizer.extra_special_tokens = sids
    tokenizer.save_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(rows or len(tokenizer), mean_resizing=False)
    model.save_pretrained(base)
    return config


def test_sid_tokens_that_are_special_from_check_to_recommend(tmp_path: Path) -> None:
    config = with_tokens(tmp_path, special=True, rows=None)
    items = Path(str(config.data.items))
    tree = json.loads(items.read_text())
    tree["0"]["title"] = TITLES[0] + " <a_0></s>"
    items.write_text(json.dumps(tree))
    inputs = Inputs(config)
    assert not [found for found in run_checks(inputs) if found.severity == "error"]
    sids = set(inputs.vocabulary.sid_ids.tolist())
    title, *_ = inputs.mixture.encoder.item_tokens("title", False)
    assert not sids & set(title.tolist()), "SID text in a title stays text"
    dies(config, 5)
    result = run(config)
    assert len(losses(config)) == 6
    saved: Any = AutoTokenizer.from_pretrained(result.folder)
    written = "".join(inputs.catalogue.sids[0])
    ids = saved(written, add_special_tokens=False).input_ids
    assert ids == saved.convert_tokens_to_ids(list(inputs.catalogue.sids[0]))
    assert saved.decode(ids, skip_special_tokens=True) == written
    assert saved.decode([*ids, saved.eos_token_id], skip_special_tokens=True) == written
    answer = json.loads(
        call("recommend", result.folder, "--history", "1,2", "-k", 3, "--json").stdout
    )
    expected = plainly_ranked(config, ["1", "2"])[:3]
    assert [item["item_id"] for item in answer["items"]] == [item for item, _ in expected]
    assert call("evaluate", result.folder).exit_code == 0


def test_a_run_with_special_sid_tokens_may_be_the_next_base(tmp_path: Path) -> None:
    first = run(with_tokens(tmp_path, special=True, rows=None))
    section = {"base": str(first.folder)}
    config = tiny_config(tmp_path, model=section, training=SHORT, output_dir=str(tmp_path / "next"))
    assert Inputs(config).vocabulary.counts == "0 new; 13 with trained rows"
    run(config)


@pytest.mark.parametrize("new_rows", ["mean", "text"])
@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_sid_tokens_above_the_rows_of_the_model_are_new(
    tmp_path: Path, tuning: str, new_rows: str
) -> None:
    """Of 13 SID tokens that the tokenizer knows, the model has rows for the first five."""
    known = len(AutoTokenizer.from_pretrained(make_base(tmp_path / "base")))
    config = with_tokens(
        tmp_path,
        False,
        known + 5,
        model={"tuning": tuning, "new_rows": new_rows, "base": str(tmp_path / "base")},
    )
    inputs = Inputs(config)
    vocabulary = inputs.vocabulary
    assert vocabulary.trained_ids.tolist() == list(range(known, known + 5))
    assert (
        vocabulary.new_ids.tolist()
        == vocabulary.rowless_ids.tolist()
        == list(range(known + 5, known + 13))
    )
    (note,) = [found for found in run_checks(inputs) if "SID tokens:" in found.message]
    assert note.message.endswith(
        "13 SID tokens: 8 new, 8 of them only in the tokenizer; 5 with trained rows"
    )
    assert note.examples[0] == "with trained rows: " + " ".join(inputs.catalogue.sid_tokens[:5])
    assert note.examples[1].startswith("new: " + inputs.catalogue.sid_tokens[5])
    assert not [found for found in run_checks(inputs) if found.where == "model.new_rows"], (
        "it has an effect"
    )
    before = load_weights(Path(config.model.base))["model.embed_tokens.weight"]
    model: Any = load_model(config.model, vocabulary, config.seed, texts=inputs.item_texts)
    embedding = model.get_input_embeddings()
    rows = embedding(torch.arange(known + 13)).detach()
    assert torch.equal(rows[: known + 5], before)
    if new_rows == "text":
        lengths = rows[known + 5 :].norm(dim=1) / before.norm(dim=1).median()
        assert ((lengths > 0.8) & (lengths < 1.3)).all(), "scaled to the known rows"
    else:
        assert 0.7 < float(rows[known + 5 :].std() / before.std()) < 1.3


def test_training_says_which_rows_are_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = len(AutoTokenizer.from_pretrained(make_base(tmp_path / "base")))
    run(with_tokens(tmp_path, False, known, model={"base": str(tmp_path / "base")}))
    shown = " ".join(capsys.readouterr().out.split())
    assert "13 SID tokens (13 new, 13 of them only in the tokenizer) · vocabulary" in shown


def test_from_scratch_trains_every_row(tmp_path: Path) -> None:
    config = with_tokens(
        tmp_path, False, None, model={"base": str(tmp_path / "base"), "from_scratch": True}
    )
    assert len(Inputs(config).vocabulary.new_ids) == 13


def test_other_tokens_without_rows_are_counted(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(config.model.base)
    tokenizer.add_tokens(["<x>", "<y>"])
    tokenizer.save_pretrained(config.model.base)
    assert any(
        "2 other tokens of the tokenizer have no row" in found.message
        for found in run_checks(Inputs(config))
    )
    scratch = {"base": config.model.base, "from_scratch": True}
    found = run_checks(Inputs(tiny_config(tmp_path, model=scratch)))
    assert not any("have no row" in each.message for each in found)
