"""Log-probabilities of few tokens against the whole product."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny_models import ARCHITECTURES, make_base
from transformers import AutoModelForCausalLM

from sidtune.evaluation import head as room
from sidtune.evaluation.head import Head
from sidtune.model.frozen import freeze, sid_rows

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
    model = AutoModelForCausalLM.from_pretrained(make_base(tmp_path, architecture, tied, spare=SPARE)).eval()
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
