"""A small base of one's own, and the made-up shop."""

from __future__ import annotations

import ast
import collections
import csv
import json
import re
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from sidtune.base.errors import UserError
from sidtune.commands.demo_shop import DemoPaths, write_demo_data
from sidtune.data.catalogue import read_catalogue, read_texts
from sidtune.data.disagreements import disagreements
from sidtune.files.weight_files import load_weights
from sidtune.model.new_base import create_base
from sidtune.templates import template_texts

TEXTS = ["Blue mug, 12 oz", "A tent for two", "Größe 42 مرحبا"] * 5


def test_a_base_loads_with_plain_transformers(tmp_path: Path) -> None:
    made = create_base(tmp_path / "base", TEXTS, hidden=64, layers=2, vocab=330)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert model.num_parameters() == made.parameters
    assert len(tokenizer) == made.tokens <= 330
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.model_type) == (
        64,
        2,
        "qwen3",
    )
    assert tokenizer.eos_token_id == model.config.eos_token_id
    for text in ("Blue mug", "日本\t語 \n\n x", "never seen: ✓ مرحبا"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        create_base(tmp_path / name, TEXTS, hidden=32, layers=1, vocab=300, seed=seed)
    weights = {name: load_weights(tmp_path / name)["model.embed_tokens.weight"] for name in "abc"}
    assert weights["a"].equal(weights["b"])
    assert not weights["a"].equal(weights["c"])
    assert (tmp_path / "a" / "tokenizer.json").read_text() == (
        tmp_path / "c" / "tokenizer.json"
    ).read_text()


def test_without_items_the_tokenizer_knows_our_wording(tmp_path: Path) -> None:
    texts = template_texts()
    assert {"A user's interactions, oldest first:\n", "\nThe next item is:\n"} <= set(texts)
    assert not any("{" in text or not text for text in texts)
    create_base(tmp_path / "base", texts, hidden=32, layers=1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    for text in texts:
        assert len(tokenizer(text).input_ids) <= len(re.findall(r"\w+|\W", text)), (
            "a token a word, no more"
        )
    for text in ("Blue mug", "日本\t語 \n\n x"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 100}, "multiple of 32"),
        ({"hidden": 0}, "multiple of 32"),
        ({"layers": 0}, "at least 1"),
        ({"vocab": 100}, "at least 300"),
    ],
)
def test_sizes_that_make_no_model(tmp_path: Path, change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_base(tmp_path / "base", TEXTS, **change)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        create_base(tmp_path, TEXTS)
    with pytest.raises(UserError, match="no texts"):
        create_base(tmp_path / "new", [])


def test_a_monstrous_title_does_not_hang(tmp_path: Path) -> None:
    create_base(
        tmp_path / "base", [*TEXTS, "x" * 100_000, "ab " * 100_000], hidden=32, layers=1, vocab=400
    )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DemoPaths:
    return write_demo_data(tmp_path_factory.mktemp("demo"), seed=3, users=200)


def test_the_demo_follows_its_seed(shop: DemoPaths, tmp_path: Path) -> None:
    same, other = (write_demo_data(tmp_path / str(seed), seed=seed, users=200) for seed in (3, 4))
    assert same.train.read_bytes() == shop.train.read_bytes()
    assert other.train.read_bytes() != shop.train.read_bytes()


def test_the_demo_is_in_the_format_of_real_data(shop: DemoPaths) -> None:
    catalogue = read_catalogue(shop.items, shop.index)
    assert len(catalogue.ids) == 480
    assert 0 < len(catalogue.ids) - len(catalogue.items_of) < 20, "a few items share a SID"
    assert len(set(catalogue.titles)) == 480
    for path in (shop.train, shop.valid, shop.test):
        assert list(disagreements(path, catalogue)) == []
    raw = json.loads(shop.items.read_text())
    kinds = [entry["description"][:1] for entry in raw.values()]
    assert "" in kinds
    assert "[" in kinds
    assert len(read_texts(shop.items)) == 960


def test_the_demo_leaves_one_out_without_leaking(shop: DemoPaths) -> None:
    train, valid, test = read(shop.train), read(shop.valid), read(shop.test)
    assert len(valid) == len(test) == 200
    held_out = {(row["user_id"], row["history_item_id"]) for row in [*valid, *test]}
    assert not held_out & {(row["user_id"], row["history_item_id"]) for row in train}
    for early, late in zip(valid, test, strict=True):
        whole = [*ast.literal_eval(early["history_item_id"]), int(early["item_id"])]
        assert ast.literal_eval(late["history_item_id"]) == whole[-10:]


def test_the_demo_has_favourites_and_habits(shop: DemoPaths) -> None:
    train = read(shop.train)
    counts = collections.Counter(row["item_id"] for row in train)
    top = sum(count for _, count in counts.most_common(48)) / len(train)
    assert top > 0.25, "a tenth of the items is bought more than twice as often as chance"
    kind = {item: sid[0] for item, sid in json.loads(shop.index.read_text()).items()}
    steps = collections.Counter(
        (kind[str(ast.literal_eval(r["history_item_id"])[-1])], kind[r["item_id"]]) for r in train
    )
    follows = sum(
        max((n for (a, _), n in steps.items() if a == first), default=0)
        for first in {a for a, _ in steps}
    )
    assert follows / len(train) > 0.4, "what type comes next depends on what came last"
