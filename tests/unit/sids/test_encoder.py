"""A text encoder's vectors: the mean of the states of one text at a time, whatever it is batched
with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsConfig
from sidtune.sids.assign import assign
from sidtune.sids.fit import make
from sidtune.sids.index import read_index
from sidtune.sids.items import Items
from sidtune.sids.vectors import encoder as room
from sidtune.sids.vectors import fit_vectors, place_vectors
from sidtune.sids.vectors.pooling import read_pooling
from sidtune.sids.vectors.source import Source, State
from sidtune.tasks.config_file import parse_sids

WORDS = ["[PAD]", "[UNK]", "blue", "red", "mug", "tent", "for", "two"]
TEXTS = ["blue mug", "red tent for two", "mug", "", "red " * 40]


def encoder(folder: Path) -> Path:
    """A random BERT of 12 positions."""
    torch.manual_seed(0)
    words = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]"
    )
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def no_rows() -> Any:
    raise AssertionError("not asked for")


def test_vectors_are_those_of_each_text_alone(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "bert")
    items = Items([*"abcde"], TEXTS, TEXTS)
    options = SidsConfig(vectors="encoder", encoder=folder)
    vectors, states, widths = fit_vectors(Source(items, options, no_rows))
    model = BertModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = torch.tensor([tokenizer(text).input_ids[:12]], dtype=torch.long)
        if not text:
            assert (vector == 0).all()
            continue
        with torch.no_grad():
            mean = model(input_ids=ids).last_hidden_state[0].mean(0)
        assert np.allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)
    assert widths == [16]
    assert np.allclose(place_vectors(items, states, options, vectors, widths), vectors, atol=1e-6)


def test_new_items_need_the_encoder_of_the_fitted_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = encoder(Path("bert"))
    records = {str(at): {"title": f"{text} {at}"} for at, text in enumerate(TEXTS)}
    (tmp_path / "old.item.json").write_text(json.dumps(records))
    (tmp_path / "new.item.json").write_text(json.dumps({"n": {"title": "red mug"}}))
    sids = {"vectors": "encoder", "encoder": "bert", "levels": [4, 4]}
    tree = {"output_dir": "o", "data": {"items": "old.item.json"}, "sids": sids}
    made = make(parse_sids(tree, "shop.yaml"))
    # From any folder, and whatever a program that downloads leaves beside the files.
    index, new = made.folder.absolute(), tmp_path / "new.item.json"
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").write_text("")
    monkeypatch.chdir(tmp_path / "there")
    assert assign(read_index(index), index, new).new == 1
    folder = tmp_path / "bert"
    with torch.no_grad():
        model = BertModel.from_pretrained(folder)
        model.embeddings.word_embeddings.weight += 1
    model.save_pretrained(folder)
    with pytest.raises(UserError, match="are not those that the SIDs were made with"):
        assign(read_index(index), index, new)


def test_vectors_of_another_dimension_are_refused(tmp_path: Path) -> None:
    """Indexes of earlier versions know nothing of their encoder's files."""
    options = SidsConfig(vectors="encoder", encoder=encoder(tmp_path / "bert"))
    items = Items([*"abcde"], TEXTS, TEXTS)
    with pytest.raises(UserError, match=r"bert: vectors of 16 dimensions, .* fitted on 3") as told:
        place_vectors(items, {"encoder": State()}, options, np.eye(3, dtype=np.float32), [3])
    assert "as those were made" in told.value.hint


def test_several_devices_share_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three encoders on the CPU stand for three GPUs."""
    options = SidsConfig(vectors="encoder", encoder=encoder(tmp_path / "bert"))
    texts = [" ".join(WORDS[2 : 3 + number % 6]) for number in range(40)]
    source = Source(Items([str(n) for n in range(40)], texts, texts), options, no_rows)
    monkeypatch.setattr(room, "TEXTS_AT_ONCE", 3)
    alone = fit_vectors(source)[0]
    used = []

    def devices() -> list[str]:
        used.append(3)
        return ["cpu"] * 3

    monkeypatch.setattr(room, "devices", devices)
    assert np.array_equal(fit_vectors(source)[0], alone)
    assert used == [3]


def test_the_longest_texts_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that does not suffice shows at once, and the time that is told is not too short."""
    options = SidsConfig(vectors="encoder", encoder=encoder(tmp_path / "bert"))
    texts = [" ".join(["mug"] * (1 + number % 6)) for number in range(20)]
    encoded: list[int] = []
    ordinary = room._encoded

    def encoding(batch: list[str], *given: Any) -> Any:
        encoded.extend(map(len, batch))
        return ordinary(batch, *given)

    monkeypatch.setattr(room, "TEXTS_AT_ONCE", 3)
    monkeypatch.setattr(room, "_encoded", encoding)
    fit_vectors(Source(Items([str(n) for n in range(20)], texts, texts), options, no_rows))
    assert encoded == sorted(map(len, texts), reverse=True)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, 0),
        ({"pooling_mode_lasttoken": True}, -1),
        ({"pooling_mode": "lasttoken"}, -1),
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_pooling_is_that_of_the_folder(
    tmp_path: Path, config: dict[str, Any], place: int, side: str
) -> None:
    folder = encoder(tmp_path / "bert")
    change(folder / "tokenizer_config.json", padding_side=side)
    of_sentence_transformers(folder, config, longest=5)
    items = Items([*"abcde"], TEXTS, TEXTS)
    options = SidsConfig(vectors="encoder", encoder=folder)
    vectors, _, _ = fit_vectors(Source(items, options, no_rows))
    model = BertModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for text, vector in zip(TEXTS, vectors, strict=True):
        if not text:
            assert (vector == 0).all()
            continue
        ids = torch.tensor([tokenizer(text).input_ids[:5]])
        # Padding on the left moves a text to later positions.
        padding = 5 - ids.shape[1] if side == "left" else 0
        with torch.no_grad():
            positions = torch.arange(ids.shape[1])[None] + padding
            state = model(input_ids=ids, position_ids=positions).last_hidden_state[0, place]
        assert np.allclose(vector, (state / state.norm()).numpy(), atol=1e-5), text


@pytest.mark.parametrize(
    ("modules", "config", "words"),
    [
        (["Transformer", "Pooling", "Dense"], {"pooling_mode_mean_tokens": True}, "'Dense' is not"),
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True}, "max_tokens is not"),
        (["Pooling"], {"pooling_mode_cls_token": True, "pooling_mode_lasttoken": True}, "and last"),
        (["Pooling"], {"x": 1}, "without a mode"),
    ],
)
def test_a_pooling_that_is_not_supported_is_refused(
    tmp_path: Path, modules: list[str], config: dict[str, Any], words: str
) -> None:
    folder = encoder(tmp_path / "bert")
    of_sentence_transformers(folder, config, 5, modules)
    with pytest.raises(UserError, match=words) as told:
        read_pooling(folder)
    assert "sids.file" in told.value.hint


def of_sentence_transformers(
    folder: Path,
    config: dict[str, Any],
    longest: int,
    modules: Sequence[str] = ("Transformer", "Pooling", "Normalize"),
) -> None:
    """The files that sentence-transformers adds to a model."""
    listed = [
        {
            "idx": at,
            "name": str(at),
            "path": f"{at}_{name}",
            "type": f"sentence_transformers.{name}",
        }
        for at, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest}))
    place = folder / f"{modules.index('Pooling')}_Pooling"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_vectors_that_are_no_numbers_are_refused(tmp_path: Path, wrong: float) -> None:
    folder = encoder(tmp_path / "bert")
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[WORDS.index("mug"), 0] = wrong
    model.save_pretrained(folder)
    items, options = (
        Items([*"abc"], *[["", "mug", "tent"]] * 2),
        SidsConfig(vectors="encoder", encoder=folder),
    )
    with pytest.raises(UserError, match=r"1 of 3 vectors hold NaN.*first that of item b") as found:
        fit_vectors(Source(items, options, no_rows))
    assert str(folder) in str(found.value)
    with pytest.raises(UserError, match="1 of 3 vectors hold NaN"):
        place_vectors(items, {"encoder": State()}, options, np.eye(16, dtype=np.float32), [16])


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    source = Source(
        Items(["a"], ["x"], ["x"]), SidsConfig(vectors="encoder", encoder=tmp_path), no_rows
    )
    with pytest.raises(UserError, match="is no encoder that Transformers reads"):
        fit_vectors(source)
    gone = SidsConfig(vectors="encoder", encoder=tmp_path / "none")
    with pytest.raises(UserError, match="no such folder"):
        fit_vectors(Source(source.items, gone, no_rows))
