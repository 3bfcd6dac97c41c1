"""Log-probabilities of few tokens against the whole product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny_models import ARCHITECTURES, make_base
from transformers import AutoConfig, AutoModelForCausalLM

from sidtune.decoding import token_scores as room
from sidtune.decoding.token_scores import Head
from sidtune.model.tuning.frozen import freeze, sid_rows
from sidtune.training.loss.blockwise import blockwise_loss

IDS = torch.tensor([[5, 17, 240, 9], [9, 31, 77, 102]])
PLACES = torch.tensor([0, 1, 1]), torch.tensor([3, 0, 2])
SPARE = 64


@pytest.mark.parametrize("tuning", ["full", "frozen"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_it_agrees_with_the_models_own_logits(
    tmp_path: Path, architecture: str, tied: bool, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The denominator covers spare rows too, whatever tiles it is computed in."""
    monkeypatch.setattr(room, "TILES", {"cpu": (2, 50)})
    model = AutoModelForCausalLM.from_pretrained(
        make_base(tmp_path, architecture, tied, spare=SPARE)
    ).eval()
    if tuning == "frozen":
        freeze(model, torch.tensor([7, 49, 50, 300, 301, 360]))
        for rows in sid_rows(model).values():
            rows.normal_(0, 0.5)
    expected = model(IDS).logits[PLACES].log_softmax(-1)
    head = Head(model)
    assert head.ends_model == (architecture != "gemma2"), "gemma2 has a soft cap behind its head"
    assert head.vocabulary == expected.shape[1]
    with head.at(*PLACES):
        states = model(IDS, use_cache=False).logits[0]
    for tokens in (torch.tensor([3, 7, 49, 50, 51, 300, 361]), torch.arange(40, 60)):
        mine = head.logits(states, tokens) - head.normaliser(states)[:, None]
        torch.testing.assert_close(mine, expected[:, tokens], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(IDS).logits[PLACES].log_softmax(-1), expected)


@torch.no_grad()
def test_coarse_weights_give_no_probability_above_one(tmp_path: Path) -> None:
    """Numerator and denominator are of one precision, also where logits are large."""
    model = AutoModelForCausalLM.from_pretrained(make_base(tmp_path, tied=False)).eval()
    model.get_output_embeddings().weight.mul_(60)
    model.to(torch.bfloat16)
    head = Head(model)
    with head.at(*PLACES):
        states = model(IDS, use_cache=False).logits[0]
    mine = head.logits(states, torch.arange(head.vocabulary)) - head.normaliser(states)[:, None]
    assert mine.max() <= 1e-4
    torch.testing.assert_close(mine.exp().sum(-1), torch.ones(3), rtol=1e-4, atol=1e-4)


def test_the_head_is_put_back_when_the_model_fails(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_base(tmp_path)).eval()
    head = Head(model)
    with pytest.raises(IndexError), head.at(*PLACES):
        model(torch.tensor([[10_000_000]]))
    assert model.get_output_embeddings() is head.module
    assert model(IDS).logits.shape == (2, 4, head.vocabulary)


def model_that_masks(tokens: slice) -> Any:
    """Phi's head has a bias: minus infinity there means that the model never writes
    these tokens.
    """
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("phi", vocab_size=300, **shape)
    ).eval()
    with torch.no_grad():
        model.lm_head.bias[tokens] = -torch.inf
    return model


# The first column, a whole tile, and a whole tile with the beginning of the next.
@pytest.mark.parametrize("masked", [slice(0, 1), slice(0, 50), slice(0, 70), slice(100, 150)])
@torch.no_grad()
def test_masked_tokens_have_no_share_in_the_denominator(
    masked: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TILES", {"cpu": (2, 50)})
    model = model_that_masks(masked)
    head = Head(model)
    with head.at(*PLACES):
        hidden = model(IDS, use_cache=False).logits[0]
    tokens = torch.arange(300)
    mine = head.logits(hidden, tokens) - head.normaliser(hidden)[:, None]
    torch.testing.assert_close(
        mine, model(IDS).logits[PLACES].log_softmax(-1), rtol=1e-5, atol=1e-5
    )
    assert (mine[:, masked] == -torch.inf).all()


@pytest.mark.parametrize("masked", [slice(0, 1), slice(0, 50)])
def test_masked_tokens_have_no_share_in_the_training_loss(masked: slice) -> None:
    model = model_that_masks(masked)
    hidden, labels = torch.randn(5, 32), torch.tensor([60, 299, 120, 60, 77])
    gradients = []
    for loss_of in (
        lambda given: blockwise_loss(given, model.lm_head, labels, 1.0)[0],
        lambda given: F.cross_entropy(model.lm_head(given), labels, reduction="sum"),
    ):
        model.zero_grad()
        given = hidden.clone().requires_grad_()
        loss = loss_of(given)
        loss.backward()
        gradients.append(
            [
                loss.detach(),
                given.grad,
                model.lm_head.weight.grad.clone(),
                model.lm_head.bias.grad.clone(),
            ]
        )
    for mine, right in zip(*gradients, strict=True):
        assert torch.isfinite(right).all()
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-5)


def test_the_pivot_of_the_denominator_is_the_maximum() -> None:
    """Against a first column that is far below or above the others."""
    logits = torch.randn(4, 60)
    logits[:, 0] = torch.tensor([-torch.inf, -1e30, 80.0, 0.0])
    given = logits.clone().requires_grad_()
    expected = logits.double().logsumexp(-1).float()
    found = room._logsumexp(given)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-6)
    found.sum().backward()
    torch.testing.assert_close(given.grad, logits.softmax(-1), rtol=1e-5, atol=1e-6)
    assert (room._logsumexp(torch.full((2, 5), -torch.inf)) == -torch.inf).all()
