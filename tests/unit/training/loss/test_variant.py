"""Losses in place of the plain one: by hand, against a slow reference in every layout, and as the
search scores.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path as Folder
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tests.slow_search import Path, closed, random_sids
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base, make_config, random_model
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sidtune.base.ragged import Ragged
from sidtune.batching.layouts import Example, Layout, idle_micro_batch
from sidtune.batching.prefixes import Prefixes
from sidtune.config.loss import LossConfig
from sidtune.decoding.decoder import make_decoder
from sidtune.decoding.search import Search
from sidtune.decoding.trie import build_trie
from sidtune.inputs import Inputs
from sidtune.model.tuning.frozen import freeze
from sidtune.training.identity import run_identity
from sidtune.training.loss import blockwise
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.loss.variant import LossVariant, make_variant, prefixes_of

ROWS, CLOSING, PAD, TASKS, CPU = 140, 1, 2, 3, torch.device("cpu")
# Three items of a vocabulary of six: closing, text, and four SID tokens.
ITEMS: list[Path] = [(2, 4), (2, 5), (3, 4)]
LOGITS = torch.tensor([1.0, 1.0, 3.0, 1.0, 2.0, 4.0], dtype=torch.float64).log()
SIDS = random_sids(5, (1, 2, 3), 40, width=6, first=100)
CONFIGS: dict[str, dict[str, Any]] = {
    "allowed": {"over": "allowed"},
    "smoothed": {"label_smoothing": 0.1},
    "smoothed over allowed": {"over": "allowed", "label_smoothing": 0.25},
}
LAYOUTS = {
    "padded": Layout("padded", 3, PAD),
    "bucketed": Layout("bucketed", 60, PAD, pass_cost=10),
    "tree": Layout("tree", 60, PAD, pass_cost=10, token_cost=30),
}


def prefixes_for(sids: list[Path], closing: int = CLOSING) -> Prefixes:
    return prefixes_of(build_trie(Ragged.from_lists(sids), closing))


def variant_for(sids: list[Path], closing: int = CLOSING, **options: Any) -> LossVariant:
    config = LossConfig(**options)
    return LossVariant(config, prefixes_for(sids, closing) if config.looks_at_prefixes else None)


# --- by hand ---


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Of 3 + 1 at the root, 2 + 4 behind <a>, 2 behind <b>; closing is not a token of a SID
        # here.
        ({"over": "allowed"}, [math.log(4 / 3), math.log(3), 0, math.log(12)]),
        (
            {"over": "allowed", "label_smoothing": 0.5},
            [
                0.5 * math.log(4 / 3) + 0.25 * (math.log(4 / 3) + math.log(4)),
                0.5 * math.log(3) + 0.25 * (math.log(3) + math.log(3 / 2)),
                0,
                0.5 * math.log(12) + 0.5 * (math.log(12) - math.log(3 * 2 * 4) / 6),
            ],
        ),
    ],
)
def test_by_hand(options: dict[str, Any], expected: list[float]) -> None:
    """Labels <a> and <c> of (2, 4), the one child of <b>, and closing: 3, 2, 2 and 1 of a sum of
    12.

    Nodes: 0 the root, 1 behind <a>, 2 behind <b>.
    """
    variant = variant_for(ITEMS, closing=0, **options)
    labels, nodes = torch.tensor([2, 4, 4, 0]), torch.tensor([0, 1, 2, -1])
    losses = variant(LOGITS.expand(4, -1), labels, nodes)
    torch.testing.assert_close(
        losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_a_token_that_the_model_masks_counts_for_nothing() -> None:
    """A logit of minus infinity for <d>, which may follow <a> beside <c>, and for token 0."""
    variant = variant_for(ITEMS, closing=0, over="allowed")
    logits = LOGITS.clone()
    logits[[0, 5]] = -torch.inf
    given = logits.expand(2, -1).clone().requires_grad_()
    losses = variant(given, torch.tensor([2, 4]), torch.tensor([0, 1]))
    # <a> has 3 of 3 + 1; <c> has no rival left.
    expected = torch.tensor([math.log(4 / 3), 0.0], dtype=torch.float64)
    torch.testing.assert_close(losses.detach(), expected, rtol=1e-12, atol=1e-12)
    losses.sum().backward()
    slope = torch.zeros(2, 6, dtype=torch.float64)
    slope[0, 2], slope[0, 3] = -1 / 4, 1 / 4
    torch.testing.assert_close(given.grad, slope, rtol=1e-12, atol=1e-12)


def test_smoothing_over_the_vocabulary_by_hand() -> None:
    loss = variant_for(ITEMS, label_smoothing=0.5)(LOGITS[None], torch.tensor([2]), None)
    assert loss.item() == pytest.approx(0.5 * math.log(4) + 0.5 * (math.log(12) - math.log(24) / 6))


def test_the_closing_token_counts_among_those_that_may_follow_a_sid_that_begins_another() -> None:
    sids: list[Path] = [(2,), (2, 4), (3,)]
    prefixes = prefixes_for(sids, closing=0)
    labels = np.array([2, 0, 3, 0])
    nodes = prefixes.walk(labels, np.array([True, False, True, False]))
    assert nodes.tolist() == [0, 1, 0, -1]
    losses = variant_for(sids, closing=0, over="allowed")(
        LOGITS.expand(4, -1), torch.from_numpy(labels), torch.from_numpy(nodes)
    )
    # Closing is 1 of 1 + 2 behind <a>, and 1 of 12 where the SID can only end.
    assert losses.tolist() == pytest.approx(
        [math.log(4 / 3), math.log(3), math.log(4), math.log(12)]
    )


def slow_loss(
    logits: Tensor, label: int, prefix: Path | None, paths: list[Path], config: LossConfig
) -> Tensor:
    """The loss of one label, read off the definition."""
    inside, children = prefix is not None, list[int]()
    if prefix is not None:
        children = sorted(
            {p[len(prefix)] for p in paths if p[: len(prefix)] == prefix and len(p) > len(prefix)}
        )
    covered = children if inside and config.over == "allowed" else list(range(len(logits)))
    logs = logits[covered].log_softmax(-1)
    return (
        -(1 - config.label_smoothing) * logs[covered.index(label)]
        - config.label_smoothing * logs.mean()
    )


def labelled(response: list[int], paths: list[Path]) -> list[Path | None]:
    """The prefix of each label of a response that is text, one SID and the closing token."""
    first = next(at for at, token in enumerate(response) if token >= 100)
    found: list[Path | None] = [None] * first
    for at in range(first, len(response)):
        prefix = tuple(response[first:at])
        found.append(
            prefix
            if any(path[: at - first + 1] == (*prefix, response[at]) for path in paths)
            else None
        )
    return found


# --- through the model ---


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of logits even here."""
    monkeypatch.setattr(blockwise, "BLOCK_VALUES", 7 * ROWS)


def make_model(
    architecture: str = "gpt2", tied: bool = True, frozen: bool = False
) -> PreTrainedModel:
    model = random_model(make_config(architecture, tied, ROWS), spread=0.2)
    if frozen:
        freeze(model, torch.arange(100, 118))
    return model.double()  # type: ignore[no-any-return]


def make_examples() -> list[Example]:
    """Histories that share prefixes, answered with a SID, with text before it, or with several
    items as targets.
    """
    random = np.random.default_rng(3)
    examples: list[Example] = []
    for user in range(4):
        items = [SIDS[i] for i in random.integers(len(SIDS), size=4)]
        prompt = [5, 6, *(token for sid in items[:3] for token in sid), 11 + user % 2]
        for task, text in enumerate(([], [20, 21])):
            ids = [*prompt, *text, *items[3], CLOSING]
            examples.append(
                (np.array(ids, np.int32), np.array([[len(prompt), len(ids)]], np.int32), task)
            )
        ends = np.cumsum([2, *(len(sid) for sid in items)])
        ids = [5, 6, *(token for sid in items for token in sid), CLOSING]
        ends[-1] += 1
        spans = np.stack([ends[:-1], ends[1:]], axis=1).astype(np.int32)
        examples.append((np.array(ids, np.int32), spans, 2))
    return examples


def measured(
    model: PreTrainedModel, layout: Layout, variant: LossVariant | None
) -> tuple[Tensor, dict[str, Tensor]]:
    objective, sums = LabelLoss(model, TASKS, variant), []
    model.train().zero_grad()
    for batch in layout.micro_batches(make_examples()):
        loss, by_task = objective(**batch.to(CPU), scale=0.25)
        loss.backward()
        sums.append(by_task)
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return torch.stack(sums).sum(0), gradients


def one_by_one(model: PreTrainedModel, config: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Each label of each example alone, by plain autograd."""
    sums, paths = torch.zeros(TASKS, dtype=torch.float64), closed(SIDS, CLOSING)
    model.zero_grad()
    for ids, spans, task in make_examples():
        logits = model(input_ids=torch.tensor(ids, dtype=torch.long)[None]).logits[0]
        losses = []
        for start, end in spans.tolist():
            response = ids[start:end].tolist()
            prefixes = labelled(response, paths)
            losses += [
                slow_loss(logits[start + at - 1], response[at], prefixes[at], paths, config)
                for at in range(len(response))
            ]
        total = torch.stack(losses).sum()
        (0.25 * total).backward()
        sums[task] += total.detach()
    return sums, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("tied", "frozen"),
    [(True, False), (False, True), (True, True)],
    ids=["full", "frozen untied", "frozen tied"],
)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_layout_gives_the_loss_and_gradients_of_one_label_at_a_time(
    name: str, tied: bool, frozen: bool
) -> None:
    config, model = LossConfig(**CONFIGS[name]), make_model(tied=tied, frozen=frozen)
    variant = variant_for(SIDS, **CONFIGS[name])
    expected, expected_gradients = one_by_one(model, config)
    for layout in LAYOUTS.values():
        asked = replace(layout, prefixes=prefixes_for(SIDS) if config.looks_at_prefixes else None)
        loss, gradients = measured(model, asked, variant)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
        assert gradients.keys() == expected_gradients.keys()
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, expected_gradients[parameter], rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("name", ["smoothed", "smoothed over allowed"])
def test_where_something_follows_the_head_the_loss_is_the_same(name: str) -> None:
    """Gemma 2 caps its logits. It computes norms in float32, and cannot be padded on the left in
    float64.
    """
    config, model = LossConfig(**CONFIGS[name]), make_model("gemma2")
    expected, expected_gradients = one_by_one(model, config)
    variant, prefixes = variant_for(SIDS, **CONFIGS[name]), prefixes_for(SIDS)
    for layout in (LAYOUTS["bucketed"], LAYOUTS["tree"]):
        loss, gradients = measured(model, replace(layout, prefixes=prefixes), variant)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, expected_gradients[parameter], rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("frozen", [False, True], ids=["full", "frozen"])
def test_autocast_stays_near_full_precision(frozen: bool) -> None:
    model, layout = (
        make_model(frozen=frozen).float(),
        replace(LAYOUTS["tree"], prefixes=prefixes_for(SIDS)),
    )  # type: ignore[no-untyped-call]
    variant = variant_for(SIDS, **CONFIGS["smoothed over allowed"])
    expected, exact = measured(model, layout, variant)
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradients = measured(model, layout, variant)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.5)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, exact[name], rtol=0.2, atol=0.1)


def test_the_default_needs_no_variant() -> None:
    assert make_variant(LossConfig(), None) is None


def test_in_evaluation_mode_the_loss_is_the_plain_one() -> None:
    model, layout = make_model(), replace(LAYOUTS["tree"], prefixes=prefixes_for(SIDS))
    batch, *_ = layout.micro_batches(make_examples())
    _, plain = LabelLoss(model, TASKS)(**batch.to(CPU))
    objective = LabelLoss(model, TASKS, variant_for(SIDS, **CONFIGS["smoothed over allowed"]))
    model.eval()
    assert torch.equal(objective(**batch.to(CPU))[1], plain)
    model.train()
    assert not torch.equal(objective(**batch.to(CPU))[1], plain)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_an_idle_pass_has_zero_gradient(architecture: str) -> None:
    model, layout = make_model(architecture), replace(LAYOUTS["tree"], prefixes=prefixes_for(SIDS))
    batch = idle_micro_batch(make_examples()[0], layout)
    loss, _ = LabelLoss(
        model, TASKS, variant_for(SIDS, **CONFIGS["smoothed over allowed"])
    ).train()(**batch.to(CPU))
    loss.backward()
    assert loss.item() == 0
    assert all(
        p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad
    )


# --- properties ---


@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_over_fewer_tokens_the_loss_is_less(seed: int, spread: float) -> None:
    """And with smoothing, both are those of `cross_entropy` on the columns that are covered."""
    generator = torch.Generator().manual_seed(seed)
    prefixes = prefixes_for(SIDS)
    nodes = torch.from_numpy(np.flatnonzero(np.diff(prefixes.starts)))
    children = [
        prefixes.tokens[prefixes.starts[node] : prefixes.starts[node + 1]] for node in nodes
    ]
    labels = torch.tensor(
        [int(c[int(torch.randint(len(c), (), generator=generator))]) for c in children]
    )
    logits = 4 * torch.randn(len(nodes), ROWS, generator=generator, dtype=torch.float64)
    plain = F.cross_entropy(logits, labels, reduction="none")
    assert (variant_for(SIDS, over="allowed")(logits, labels, nodes) <= plain + 1e-12).all()
    smoothed = variant_for(SIDS, over="allowed", label_smoothing=spread)(logits, labels, nodes)
    for row, tokens in enumerate(children):
        place = torch.tensor(tokens.tolist().index(int(labels[row])))
        expected = F.cross_entropy(logits[row, tokens], place, label_smoothing=spread)
        torch.testing.assert_close(smoothed[row], expected, rtol=1e-10, atol=1e-10)


def test_over_allowed_it_is_the_score_that_the_search_gives(tmp_path: Folder) -> None:
    """Of every SID, among them some that begin others."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(make_base(tmp_path / "base"))
    sids = random_sids(7, (1, 2, 3), 25, width=4, first=300)
    paths, prompt = closed(sids, CLOSING), [5, 17, 240, 301, 305]
    assert paths != sids
    search = Search(build_trie(Ragged.from_lists(sids), CLOSING), 64, "trie", 100_000)
    found, scores = search.run(make_decoder(model.eval()), Ragged.from_lists([prompt]))
    found, scores = found[found >= 0], scores[found >= 0]
    assert sorted(found.tolist()) == list(range(len(sids)))
    span = [[len(prompt), len(prompt) + len(path)] for path in paths]
    examples: list[Example] = [
        (np.array([*prompt, *path], np.int32), np.array([span[n]], np.int32), n)
        for n, path in enumerate(paths)
    ]
    layout = Layout("tree", 1000, PAD, pass_cost=10, token_cost=30, prefixes=prefixes_for(sids))
    objective = LabelLoss(model.train(), len(sids), variant_for(sids, over="allowed"))
    losses = torch.stack(
        [objective(**batch.to(CPU))[1] for batch in layout.micro_batches(examples)]
    ).sum(0)
    torch.testing.assert_close(-losses[found], scores, rtol=0, atol=1e-4)


# --- from the configuration ---


def test_only_another_loss_is_part_of_what_a_resumed_run_must_share(tmp_path: Folder) -> None:
    plain = run_identity(Inputs(tiny_config(tmp_path)), 1)
    changed = run_identity(Inputs(tiny_config(tmp_path, loss={"over": "allowed"})), 1)
    assert changed.pop("loss")["over"] == "allowed"
    assert changed == plain
