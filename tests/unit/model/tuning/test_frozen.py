"""Frozen tuning and what is saved of it, against the plain model and PEFT."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from tests.tiny_models import ARCHITECTURES, make_base
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.files.weight_files import load_weights
from sidtune.model.checkpoint_files import (
    SID_ROWS,
    load_plain_state_dict,
    load_start,
    load_training_state,
    plain_state_dict,
    save_pretrained,
    save_training_state,
)
from sidtune.model.load import load_model
from sidtune.model.tuning import tuning_of
from sidtune.model.tuning.base import module_name
from sidtune.model.tuning.frozen import load_sid_rows, sid_rows
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import Vocabulary, extend_vocabulary

SIDS = [f"<{level}_{n}>" for level in "abc" for n in range(4)]
TIES = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
MODELS = pytest.mark.parametrize("architecture", ARCHITECTURES)


def load(
    base: Path, tuning: str, sids: list[str] = SIDS, seed: int = 0
) -> tuple[PreTrainedModel, Vocabulary]:
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), sids)
    config = ModelConfig(base=str(base), tuning=tuning)  # type: ignore[arg-type]
    return load_model(config, vocabulary, seed).eval(), vocabulary


def batch(vocabulary: Vocabulary) -> torch.Tensor:
    """Old and new tokens, every new one among them."""
    generator = torch.Generator().manual_seed(3)
    old = torch.randint(3, vocabulary.known, (3, 12), generator=generator)
    new = torch.from_numpy(vocabulary.sid_ids).reshape(3, -1)
    return torch.cat([old, new, old[:, :4]], dim=1)


def loss_of(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
    )


@MODELS
@TIES
def test_logits_and_gradients_are_those_of_the_plain_model(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    base = make_base(tmp_path / "base", architecture, tied, spare=5)
    plain, vocabulary = load(base, "full")
    frozen, _ = load(base, "frozen")
    ids = batch(vocabulary)
    torch.testing.assert_close(frozen(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)
    loss_of(plain, ids).backward()
    loss_of(frozen, ids).backward()
    sid_ids = torch.from_numpy(vocabulary.sid_ids)
    expected = {"input": plain.get_input_embeddings().weight.grad[sid_ids]}
    if not tied:
        expected["output"] = plain.get_output_embeddings().weight.grad[sid_ids]
    rows = sid_rows(frozen)
    assert rows.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(rows[name].grad, gradient, rtol=1e-4, atol=1e-4)
    assert all(
        parameter.grad is None for parameter in frozen.parameters() if not parameter.requires_grad
    )


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@TIES
def test_gradients_are_those_of_peft(tmp_path: Path, architecture: str, tied: bool) -> None:
    peft = pytest.importorskip("peft")
    base = make_base(tmp_path / "base", architecture, tied)
    plain, vocabulary = load(base, "full")
    frozen, _ = load(base, "frozen")
    ids = batch(vocabulary)
    tokens = vocabulary.sid_ids.tolist()
    modules = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    settings = peft.TrainableTokensConfig(
        token_indices=tokens, target_modules=modules, init_weights=True
    )
    theirs = peft.get_peft_model(copy.deepcopy(plain), settings)
    loss_of(theirs, ids).backward()
    loss_of(frozen, ids).backward()
    deltas = {
        name: p.grad
        for name, p in theirs.named_parameters()
        if p.requires_grad and "trainable_tokens" in name
    }
    rows = sid_rows(frozen)
    for name, place in (("input", "embed_tokens"), ("output", "lm_head"))[: len(rows)]:
        (gradient,) = [grad for key, grad in deltas.items() if place in key]
        torch.testing.assert_close(rows[name].grad, gradient, rtol=1e-4, atol=1e-4)


@MODELS
@TIES
def test_training_moves_the_sid_rows_and_nothing_else(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    base = make_base(tmp_path / "base", architecture, tied, dtype=torch.bfloat16, spare=70)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    before = plain.state_dict()
    matrices = {
        f"{module_name(plain, m)}.weight"
        for m in (plain.get_input_embeddings(), plain.get_output_embeddings())
    }
    model, vocabulary = load(base, "frozen")
    start = {name: row.detach().clone() for name, row in sid_rows(model).items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.dtype == torch.float32 for parameter in trained)
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.5)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch(vocabulary))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, row in sid_rows(model).items():
        assert ((row - start[name]).abs().amax(dim=1) > 1e-3).all(), "every SID row moved"
    after = plain_state_dict(model)
    sid_ids = torch.from_numpy(vocabulary.sid_ids)
    for name, value in before.items():
        if tied and name not in after:
            continue
        now = after[name]
        assert now.dtype == torch.bfloat16
        if name not in matrices:
            assert torch.equal(now, value), name
        else:
            old = torch.ones(len(value), dtype=torch.bool)
            old[sid_ids[sid_ids < len(value)]] = False
            assert torch.equal(now[: len(value)][old], value[old]), f"{name}: an old row moved"


@MODELS
@TIES
@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_the_saved_folder_is_an_ordinary_model(
    tmp_path: Path, architecture: str, tied: bool, tuning: str
) -> None:
    model, vocabulary = load(make_base(tmp_path / "base", architecture, tied, spare=3), tuning)
    with torch.no_grad():
        for row in (p for p in model.parameters() if p.requires_grad):
            row.add_(torch.randn_like(row), alpha=0.02)
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, report = AutoModelForCausalLM.from_pretrained(
            tmp_path / "saved", output_loading_info=True
        )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = batch(vocabulary)
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert (again.get_input_embeddings().weight is again.get_output_embeddings().weight) == tied
    assert again.config.vocab_size % 64 == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer.convert_tokens_to_ids(SIDS) == vocabulary.tokenizer.convert_tokens_to_ids(SIDS)


@TIES
def test_the_result_has_the_dtype_asked_for(tmp_path: Path, tied: bool) -> None:
    model, vocabulary = load(make_base(tmp_path / "base", tied=tied, dtype=torch.bfloat16), "full")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters()), (
        "trained in float32"
    )
    save_pretrained(model, vocabulary.tokenizer, tmp_path / "saved", torch.bfloat16)
    assert {value.dtype for value in load_weights(tmp_path / "saved").values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").dtype == torch.bfloat16


@TIES
def test_a_frozen_state_comes_back_in_full_precision(tmp_path: Path, tied: bool) -> None:
    base = make_base(tmp_path / "base", tied=tied, dtype=torch.bfloat16)
    model, vocabulary = load(base, "frozen")
    with torch.no_grad():
        for row in sid_rows(model).values():
            row.add_(1e-5 * torch.randn_like(row))
    save_training_state(model, vocabulary.tokenizer, tmp_path / "state")
    other, _ = load(base, "frozen", seed=9)
    load_training_state(other, tmp_path / "state")
    for name, row in sid_rows(model).items():
        assert torch.equal(sid_rows(other)[name], row)


@MODELS
@TIES
@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_a_training_state_comes_back_bit_by_bit(
    tmp_path: Path, architecture: str, tied: bool, tuning: str
) -> None:
    """Also where files name weights otherwise than the model does, and in float32 where the base is
    bfloat16.
    """
    base = make_base(tmp_path / "base", architecture, tied, dtype=torch.bfloat16)
    model, vocabulary = load(base, tuning)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(1e-5 * torch.randn_like(parameter))
    save_training_state(model, vocabulary.tokenizer, tmp_path / "state")
    other, _ = load(base, tuning, seed=9)
    load_training_state(other, tmp_path / "state")
    expected, found = dict(model.named_parameters()), dict(other.named_parameters())
    assert expected.keys() == found.keys()
    # A frozen base's own rows at SID ids are never looked up.
    same = [name for name in expected if expected[name].requires_grad or ".base." not in name]
    assert all(torch.equal(found[name], expected[name]) for name in same)


@TIES
def test_frozen_and_full_read_the_same_weights(tmp_path: Path, tied: bool) -> None:
    base = make_base(tmp_path / "base", tied=tied)
    full, vocabulary = load(base, "full", seed=5)
    frozen, _ = load(base, "frozen")
    ids = batch(vocabulary)
    assert not torch.allclose(frozen(ids).logits, full(ids).logits, atol=1e-5)
    load_plain_state_dict(frozen, plain_state_dict(full))
    torch.testing.assert_close(frozen(ids).logits, full(ids).logits, rtol=1e-5, atol=1e-5)
    merged = plain_state_dict(frozen)
    assert all(torch.equal(merged[name], value) for name, value in plain_state_dict(full).items())


@MODELS
@TIES
def test_tying_again_changes_nothing(tmp_path: Path, architecture: str, tied: bool) -> None:
    model, _ = load(make_base(tmp_path / "base", architecture, tied), "frozen")
    before = {
        name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    model.tie_weights()
    assert {
        name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)
    } == before


def test_a_frozen_state_without_its_rows_is_refused(tmp_path: Path) -> None:
    model, vocabulary = load(make_base(tmp_path / "base"), "frozen")
    save_training_state(model, vocabulary.tokenizer, tmp_path / "state")
    (tmp_path / "state" / SID_ROWS).write_bytes(b"x")
    with pytest.raises(UserError, match="damaged weights"):
        load_training_state(model, tmp_path / "state")
    (tmp_path / "state" / SID_ROWS).unlink()
    with pytest.raises(UserError, match="damaged weights"):
        load_training_state(model, tmp_path / "state")


def test_rows_of_other_tokens_are_refused(tmp_path: Path) -> None:
    model, _ = load(make_base(tmp_path / "base"), "frozen")
    with pytest.raises(UserError, match=r"SID rows do not match.*\(1, 32\)"):
        load_sid_rows(model, {"input": torch.zeros(1, 32)})
    with pytest.raises(UserError, match="SID rows do not match"):
        load_sid_rows(model, {})


def test_faults_of_renamed_weights_are_named(tmp_path: Path) -> None:
    """Experts lie in the files one by one and in the model together."""
    base = make_base(tmp_path / "base", "qwen3_moe")
    model, vocabulary = load(base, "full")
    save_training_state(model, vocabulary.tokenizer, tmp_path / "state")
    weights = load_weights(tmp_path / "state")
    with pytest.raises(UserError, match=r"model\.norm\.weight: missing in the file"):
        load_plain_state_dict(
            model, {name: w for name, w in weights.items() if name != "model.norm.weight"}
        )
    with pytest.raises(UserError, match=r"extra: \(1,\) in the file, unknown in the model"):
        load_plain_state_dict(model, weights | {"extra": torch.zeros(1)})
    with pytest.raises(UserError, match=r"model\.norm\.weight: \(5,\) in the file"):
        load_plain_state_dict(model, weights | {"model.norm.weight": torch.zeros(5)})
    lost = next(name for name in weights if ".experts.2." in name)
    with pytest.raises(UserError, match=r"experts\.\w+"):
        load_plain_state_dict(model, {name: w for name, w in weights.items() if name != lost})


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_weights_of_another_model_are_refused(tmp_path: Path, tuning: str) -> None:
    model, _ = load(make_base(tmp_path / "base"), tuning)
    weights = plain_state_dict(model)
    name = next(iter(weights))
    with pytest.raises(UserError, match=r"1 weights do not match the model.*missing"):
        load_plain_state_dict(model, {key: value for key, value in weights.items() if key != name})
    with pytest.raises(UserError, match="unknown in the model"):
        load_plain_state_dict(model, weights | {"extra.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"\(1,\) in the file"):
        load_plain_state_dict(model, weights | {name: torch.zeros(1)})


def test_counts(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    plain, _ = load(base, "full")
    frozen, _ = load(base, "frozen")
    total = sum(parameter.numel() for parameter in plain.parameters())
    assert tuning_of(plain).parameter_counts(plain) == (total, total)
    assert tuning_of(frozen).parameter_counts(frozen) == (len(SIDS) * 32, total)
    untied, _ = load(make_base(tmp_path / "untied", tied=False), "frozen")
    assert tuning_of(untied).parameter_counts(untied)[0] == 2 * len(SIDS) * 32


def test_sid_rows_need_not_lie_together(tmp_path: Path) -> None:
    """Items added to a trained model: known tokens keep their rows, and ids of both kinds are
    trained.
    """
    first, vocabulary = load(make_base(tmp_path / "base"), "full", SIDS[4:8])
    with torch.no_grad():
        first.get_input_embeddings().weight.add_(0.5)
    tokenizer = vocabulary.tokenizer
    tokenizer.add_tokens(["<unrelated>"])
    save_pretrained(first, tokenizer, tmp_path / "first", torch.float32)
    second, grown = load(tmp_path / "first", "frozen", SIDS)
    assert len(grown.new_ids) == len(SIDS) - 4
    assert torch.diff(torch.from_numpy(grown.sid_ids)).max() > 1, (
        "the unrelated token lies in between"
    )
    plain, _ = load(tmp_path / "first", "full", SIDS)
    known = torch.tensor(grown.tokenizer.convert_tokens_to_ids(SIDS[4:8]))
    before = first.get_input_embeddings().weight[known]
    assert torch.equal(plain.get_input_embeddings().weight[known], before), "trained rows are kept"
    ids = batch(grown)
    torch.testing.assert_close(second(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_bias_of_the_head_stays_the_bases(tmp_path: Path) -> None:
    """GPT-J has one; its SID entries start as the mean of the known ones and stay."""
    from transformers import GPTJConfig, GPTJForCausalLM

    base = make_base(tmp_path / "base", "gpt2")
    rows = len(load_tokenizer(str(base)))
    config = GPTJConfig(
        vocab_size=rows, n_embd=32, n_layer=1, n_head=2, rotary_dim=8, n_positions=64
    )
    GPTJForCausalLM(config).save_pretrained(base)
    plain, vocabulary = load(base, "full")
    frozen, _ = load(base, "frozen")
    ids = batch(vocabulary)
    torch.testing.assert_close(frozen(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)
    bias = plain.lm_head.bias
    expected = bias[: vocabulary.known].mean().expand(len(SIDS))
    torch.testing.assert_close(bias[torch.from_numpy(vocabulary.sid_ids)], expected)
    save_pretrained(frozen, vocabulary.tokenizer, tmp_path / "saved", torch.float32)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again(ids).logits, frozen(ids).logits, rtol=1e-5, atol=1e-5)


def test_sharded_weights_are_read(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    whole, parts = load_weights(base), load_weights(tmp_path / "shards")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


@TIES
def test_weights_start_a_model_of_the_other_tuning(tmp_path: Path, tied: bool) -> None:
    """Rows trained in float32 over a bfloat16 base arrive in a full model unrounded, and come back
    so.
    """
    base = make_base(tmp_path / "base", "qwen3", tied, dtype=torch.bfloat16)
    frozen, vocabulary = load(base, "frozen")
    trained = {name: torch.randn_like(row) for name, row in sid_rows(frozen).items()}
    load_sid_rows(frozen, trained)
    tokenizer, ids = vocabulary.tokenizer, torch.from_numpy(vocabulary.sid_ids)
    save_training_state(frozen, tokenizer, tmp_path / "frozen")
    full, _ = load(base, "full", seed=5)
    load_start(full, tmp_path / "frozen", ids)
    embedding, head = full.get_input_embeddings(), full.get_output_embeddings()
    matrices = {"input": embedding.weight.detach(), "output": head.weight.detach()}
    for name, row in trained.items():
        assert torch.equal(matrices[name][ids], row)
    assert (embedding.weight is head.weight) == tied
    before = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight
    assert torch.equal(matrices["input"][: vocabulary.known], before[: vocabulary.known].float())
    save_training_state(full, tokenizer, tmp_path / "full")
    again, _ = load(base, "frozen", seed=5)
    load_start(again, tmp_path / "full", ids)
    assert all(torch.equal(sid_rows(again)[name], row) for name, row in trained.items())
    with pytest.raises(UserError, match=r"do not match the model: .*12, .* expected .*11, "):
        load_start(full, tmp_path / "frozen", ids[:-1])
