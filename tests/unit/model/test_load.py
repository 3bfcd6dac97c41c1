"""Bases and their weights: what is accepted, what is refused, what new rows start as."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import make_base, make_tokenizer
from transformers import (
    AutoConfig,
    BartConfig,
    BertConfig,
    Gemma3TextConfig,
    PreTrainedConfig,
    ViTConfig,
)

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.files.weight_files import load_weights
from sidtune.model.initialise import mean_rows
from sidtune.model.load import base_dtype, load_model
from sidtune.tokenizer.load import load_model_config, load_tokenizer
from sidtune.tokenizer.vocabulary import extend_vocabulary

SIDS = ["<a_0>", "<a_1>", "<b_0>"]


def loaded(base: Path, sids: list[str] = SIDS, seed: int = 0, **config: Any) -> tuple[Any, Any]:
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), sids)
    return load_model(ModelConfig(base=str(base), **config), vocabulary, seed), vocabulary


# --- bases ---


def test_a_missing_base(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_tokenizer(str(tmp_path / "nothing"))
    with pytest.raises(
        UserError, match="neither a local folder nor a model that can be downloaded"
    ) as error:
        load_tokenizer("nobody/nothing-at-all")
    assert "nothing is downloaded" in error.value.hint
    with pytest.raises(UserError, match="cannot be read"):
        load_model_config(str(tmp_path))


def test_why_a_base_cannot_be_downloaded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError("You are trying to access a gated repo.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", failing)
    with pytest.raises(UserError, match="downloaded: You are trying to access a gated repo"):
        load_model_config("nobody/nothing-at-all")


def test_a_tokenizer_without_eos(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "t")
    config = tmp_path / "t" / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings.pop("eos_token", None)
    config.write_text(json.dumps(settings))
    make_base(tmp_path / "base")
    for file in (tmp_path / "t").iterdir():
        shutil.copy(file, tmp_path / "base" / file.name)
    with pytest.raises(UserError, match="no EOS token"):
        load_tokenizer(str(tmp_path / "base"))


def test_a_missing_pad_token_becomes_eos(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(base))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BartConfig(), "encoder-decoder"),
        (ViTConfig(), "not a causal language model"),
        (BertConfig(), "its attention is bidirectional"),
        (Gemma3TextConfig(use_bidirectional_attention=True), "its attention is bidirectional"),
    ],
    ids=["encoder-decoder", "images", "encoder", "both ways"],
)
def test_other_kinds_of_model(tmp_path: Path, config: PreTrainedConfig, message: str) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        load_model_config(str(tmp_path))


@pytest.mark.parametrize(
    "config", [BertConfig(is_decoder=True), Gemma3TextConfig()], ids=["bert", "gemma3"]
)
def test_causal_relatives_are_accepted(tmp_path: Path, config: PreTrainedConfig) -> None:
    config.save_pretrained(tmp_path)
    assert load_model_config(str(tmp_path)).model_type == config.model_type


def test_a_configuration_of_wrong_types(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    tree = json.loads((base / "config.json").read_text()) | {"vocab_size": "many"}
    (base / "config.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"cannot be read.*vocab_size"):
        load_model_config(str(base))


def test_code_of_a_base_is_not_run_unasked(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    marker = tmp_path / "ran"
    (base / "modeling_evil.py").write_text(
        f"open({str(marker)!r}, 'w').write('x')\nclass Evil: pass\nclass Config: pass\n"
    )
    tree = json.loads((base / "config.json").read_text())
    tree["model_type"] = "evil"
    tree["auto_map"] = {
        "AutoConfig": "modeling_evil.Config",
        "AutoModelForCausalLM": "modeling_evil.Evil",
    }
    (base / "config.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="contains Python code") as error:
        load_model_config(str(base))
    assert "--trust-remote-code" in error.value.hint
    assert not marker.exists()


def test_missing_and_incomplete_weights_are_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    weights = load_weights(base)
    lost = next(name for name in weights if "mlp" in name)
    from safetensors.torch import save_file

    save_file(
        {k: v for k, v in weights.items() if k != lost},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UserError, match="lacks 1 weights"):
        loaded(base)
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded") as error:
        loaded(base)
    assert "from_scratch" in error.value.hint
    assert loaded(base, from_scratch=True)[0].config.vocab_size % 64 == 0


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 40], ids=["empty", "nonsense"])
def test_a_base_with_damaged_weights(tmp_path: Path, name: str, content: bytes) -> None:
    base = make_base(tmp_path / "base")
    (base / "model.safetensors").unlink()
    (base / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be loaded"):
        loaded(base)
    with pytest.raises(UserError, match="damaged weights"):
        load_weights(base)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no weights"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    "index", ["[]", "3", "{", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}']
)
def test_a_damaged_index(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match="damaged weights"):
        load_weights(tmp_path)


def test_an_index_reads_nothing_outside_its_folder(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    (tmp_path / "other").mkdir()
    index = {"weight_map": {"a": str(base / "model.safetensors")}}
    (tmp_path / "other" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="damaged weights"):
        load_weights(tmp_path / "other")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_weights_of_the_older_kind(tmp_path: Path, zipped: bool) -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    file = tmp_path / "pytorch_model.bin"
    torch.save(weights, file, _use_new_zipfile_serialization=zipped)
    again = load_weights(tmp_path)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    whole = file.read_bytes()
    for length in range(0, len(whole) - 200, 41):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged weights"):
            load_weights(tmp_path)
    torch.save(torch.zeros(2), file)
    with pytest.raises(UserError, match="does not contain a dictionary of weights"):
        load_weights(tmp_path)


def test_flipped_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """The old format has no checksum: its reader fails in many ways, and each is the user's to
    mend.
    """
    file = tmp_path / "pytorch_model.bin"
    torch.save(
        {"a": torch.zeros(4, 3), "b": torch.ones(2)}, file, _use_new_zipfile_serialization=False
    )
    whole, randomness, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[randomness.randrange(len(whole))] = randomness.randrange(256)
        file.write_bytes(damaged)
        try:
            load_weights(tmp_path)
        except UserError:
            refused += 1
    assert refused > 100


def test_a_pickle_posing_as_weights_does_not_run(tmp_path: Path) -> None:
    import pickle

    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(marker), "w"))

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="damaged weights"):
        load_weights(tmp_path)
    assert not marker.exists()


# --- rows ---


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 100])
def test_rows_are_kept_added_and_started(tmp_path: Path, tied: bool, spare: int) -> None:
    base = make_base(tmp_path / "base", tied=tied, spare=spare)
    before = load_weights(base)["model.embed_tokens.weight"]
    model, vocabulary = loaded(base)
    matrix = model.get_input_embeddings().weight.detach()
    assert len(matrix) >= len(before)
    assert len(matrix) % 64 == 0
    assert model.config.vocab_size == len(matrix)
    known = torch.arange(vocabulary.known)
    assert torch.equal(matrix[known], before[known])
    new = matrix[torch.from_numpy(vocabulary.new_ids)]
    mean, spread = before[known].mean(0), before[known].std(0)
    assert ((new.mean(0) - mean).abs() < 5 * spread / len(new) ** 0.5).all(), "spare ones left out"
    assert 0.7 < float(new.std() / before[known].std()) < 1.3, "as far apart as the known rows"
    assert len({tuple(row.tolist()) for row in new}) == len(SIDS), "told apart by their noise"
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


def test_new_rows_follow_the_seed(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    one, same, other = (
        loaded(base, seed=seed)[0].get_input_embeddings().weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_mean_rows_by_hand() -> None:
    known = torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    rows = mean_rows(known, 3, torch.Generator().manual_seed(0))
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(rows, torch.stack([1 + noise[:, 0], torch.full((3,), 2.0)], dim=1))


def test_from_scratch_is_seeded_and_large_enough(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", dtype=torch.bfloat16)
    one, same, other = (loaded(base, seed=seed, from_scratch=True)[0] for seed in (1, 1, 2))
    assert one.dtype == torch.float32
    assert base_dtype(ModelConfig(base=str(base))) == torch.bfloat16
    weight = one.get_input_embeddings().weight
    assert torch.equal(weight, same.get_input_embeddings().weight)
    assert not torch.equal(weight, other.get_input_embeddings().weight)


def test_frozen_needs_sid_tokens(tmp_path: Path) -> None:
    for tuning in ("frozen", "lora"):
        with pytest.raises(UserError, match="the index contains no SID token"):
            loaded(make_base(tmp_path / "base"), sids=[], tuning=tuning)


def test_a_base_that_does_not_say_its_dtype(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", dtype=torch.bfloat16)
    tree = json.loads((base / "config.json").read_text())
    del tree["dtype"]
    (base / "config.json").write_text(json.dumps(tree))
    assert base_dtype(ModelConfig(base=str(base))) == torch.bfloat16
    assert base_dtype(ModelConfig(base=str(base), from_scratch=True)) == torch.float32
