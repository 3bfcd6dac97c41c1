"""`sidtune export`: the folder that FlashRec loads answers as the model does."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from tests.asking import call, message
from transformers import AutoModelForCausalLM, AutoTokenizer

from sidtune.base.errors import UserError
from sidtune.decoding.recommender import Recommender
from sidtune.exports.flashrec import export_flashrec

HISTORIES = [["3", "1"], ["1"], ["0", "2", "4", "6"], ["7", "7"]]


@pytest.fixture
def trained(ranked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose tokens are renumbered: its codes are counted backwards."""
    backwards = lambda token: -int(re.findall(r"\d+", token)[0])  # noqa: E731
    monkeypatch.setattr("sidtune.exports.codebooks._by_code", backwards)
    return ranked


def test_the_folder_answers_as_the_model_does(trained: Path, tmp_path: Path) -> None:
    done = call("export", trained, tmp_path / "new" / "engine", "--to", "flashrec")
    assert done.exit_code == 0, done.output
    mine, theirs = (
        Recommender.load(folder, device="cpu") for folder in (trained, tmp_path / "new" / "engine")
    )
    for rank in (True, False):
        for expected, found in zip(
            *(
                (each if rank else each.unranked()).recommend(HISTORIES, k=3)
                for each in (mine, theirs)
            ),
            strict=True,
        ):
            assert [item.sid for item in found] == [item.sid for item in expected]
            scores = [[item.score for item in items] for items in (found, expected)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_codes_name_the_tokens_as_the_engine_counts_them(trained: Path, tmp_path: Path) -> None:
    """Id = start + sizes of the levels before + code, as its reader of catalogues does it."""
    made = export_flashrec(trained, tmp_path / "engine")
    tokenizer: Any = AutoTokenizer.from_pretrained(made.folder)
    offsets = [0, *accumulate(made.codebooks.sizes)]
    catalogue = Recommender.load(trained, device="cpu").bundle.catalogue
    sid_of = dict(zip(catalogue.ids, catalogue.sids, strict=True))
    by_codes = json.loads((made.folder / "sids.json").read_text())
    assert sorted(item for items in by_codes.values() for item in items) == sorted(catalogue.ids)
    for codes, items in by_codes.items():
        ids = [
            made.codebooks.start + offsets[level] + int(code)
            for level, code in enumerate(codes.split(","))
        ]
        for item in items:
            assert tuple(tokenizer.convert_ids_to_tokens(ids)) == sid_of[item]
    command = (made.folder / "serve.sh").read_text()
    assert f"--sid-token-range {made.codebooks.start}:{made.codebooks.end} " in command
    assert f"--max-tokens {len(made.codebooks.sizes)} " in command


def test_a_prompt_as_text_is_the_prompt_of_training(trained: Path, tmp_path: Path) -> None:
    """Written as `prompt.json` says and sent as a message; it ends with the boundary token."""
    made = export_flashrec(trained, tmp_path / "engine")
    recommender = Recommender.load(made.folder, device="cpu")
    tokenizer: Any = AutoTokenizer.from_pretrained(made.folder)
    prompt = json.loads((made.folder / "prompt.json").read_text())
    catalogue = recommender.bundle.catalogue
    for history in HISTORIES:
        sids = ["".join(catalogue.sids[catalogue.ids.index(item)]) for item in history]
        text = prompt["before"] + prompt["separator"].join(sids) + prompt["after"]
        encoded = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=True)
        (expected,) = recommender.prompts.encode(recommender.positions([history]))[0]
        assert encoded["input_ids"] == expected.tolist()
        boundary = next(part for part in made.command if "boundary" in part)
        assert boundary == f"--sid-boundary-tokens {expected[-1]},{recommender.prompts.closing}"


def test_weights_are_those_of_the_model(trained: Path, tmp_path: Path) -> None:
    made = export_flashrec(trained, tmp_path / "engine")
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (trained, made.folder))
    mine, theirs = (
        AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
        for folder in (trained, made.folder)
    )
    for token, place in old.get_vocab().items():
        assert (mine[place] == theirs[new.convert_tokens_to_ids(token)]).all()
    assert old.get_vocab() != new.get_vocab()


def test_what_cannot_be_exported(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert "exists" in message("export", run, tmp_path / "there", "--to", "flashrec")
    bundle, config = run / "sid_recommender.json", run / "config.json"
    bundle.write_text(json.dumps(json.loads(bundle.read_text()) | {"prompt_ids": None}))
    with pytest.raises(UserError, match="the prompts hold more of a history than its SIDs"):
        export_flashrec(run, tmp_path / "new" / "engine")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "llama"}))
    with pytest.raises(UserError, match="FlashRec serves qwen3 alone"):
        export_flashrec(run, tmp_path / "new" / "engine")
    assert not (tmp_path / "new").exists()
