"""The loss of groups in prefix trees is that of the formula, one answer and one token at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as Folder
from typing import Any

import numpy as np
import pytest
import torch
from tests.slow_search import Path, closed, random_sids
from tests.tiny_models import make_config
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, set_seed

from sidtune.base.ragged import Ragged
from sidtune.batching.layouts import Layout
from sidtune.config.loss import LossConfig
from sidtune.decoding.trie import build_trie
from sidtune.model.tuning.frozen import freeze
from sidtune.reinforcement.grpo import advantages, teaches, wanted
from sidtune.reinforcement.paths import paths_of
from sidtune.reinforcement.policy_loss import OLD, REFERENCE, PolicyLoss
from sidtune.reinforcement.rewards.base import Groups
from sidtune.reinforcement.trees import Edges, Placed, edges_of
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.loss.variant import prefixes_of

ROWS, CLOSING, PAD, CPU = 140, 1, 2, torch.device("cpu")
BETA, SFT, CLIP = 0.3, 0.2, 0.2
# Of the first two levels; the others have 1.
LEVELS = (0.5, 2.0)
# SIDs of one to three tokens, some of which begin others.
SIDS: list[Path] = random_sids(5, (1, 2, 3), 40, width=6, first=100)
TRIE = build_trie(Ragged.from_lists(SIDS), CLOSING)
PATHS = paths_of(TRIE)
PREFIXES = prefixes_of(TRIE)
# The last two share an opening; the third group teaches nothing.
PROMPTS = [[5, 17, 24], [9, 9, 31, 77, 10, 8, 41], [50, 3], [50, 3, 12]]
TASKS = np.array([0, 1, 1, 0])
RANDOM = np.random.default_rng(3)
GROUPS = Groups(
    np.stack([RANDOM.permutation(len(SIDS))[:8] for _ in PROMPTS]), RANDOM.integers(0, 9, 4)
)
GROUPS.sids[0, 5:] = -1
REWARDS = RANDOM.random(GROUPS.sids.shape) * GROUPS.there
REWARDS[2] = 0
LAYOUTS = {
    "padded": Layout("padded", 3, PAD),
    "one by one": Layout("padded", 1, PAD),
    "bucketed": Layout("bucketed", 60, PAD, pass_cost=10),
    "tree": Layout("tree", 60, PAD, pass_cost=10, token_cost=30),
}
OVER = ("vocabulary", "allowed")


def model_of(seed: int, architecture: str = "qwen3", tied: bool = True) -> PreTrainedModel:
    set_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(make_config(architecture, tied, ROWS))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.1)
    return model.double().eval()  # type: ignore[no-any-return]


def edges() -> Edges:
    prompts = [np.array(prompt, np.int32) for prompt in PROMPTS]
    return edges_of(prompts, TASKS, wanted(GROUPS, REWARDS, PATHS, BETA, SFT), PATHS, LEVELS)


# --- the slow reference ---


Seen = dict[Any, Tensor]


def log_probability(
    model: PreTrainedModel, prompt: list[int], path: Path, place: int, over: str, seen: Seen
) -> Tensor:
    """Of one token of a path; a prefix has a forward pass of its own, and one only."""
    ids = (*prompt, *path[:place])
    if (model, ids) not in seen:
        seen[model, ids] = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    logits = seen[model, ids]
    if over == "vocabulary":
        return logits.log_softmax(-1)[path[place]]
    paths = closed(SIDS, CLOSING)
    allowed = sorted(
        {p[place] for p in paths if len(p) > place and p[:place] == tuple(path[:place])}
    )
    return logits[allowed].log_softmax(-1)[allowed.index(path[place])]


def slow_loss(
    model: PreTrainedModel, reference: PreTrainedModel, old: PreTrainedModel | None, over: str
) -> Tensor:
    """The published formula, group by group, answer by answer, token by token."""
    paths, losses, seen = closed(SIDS, CLOSING), [], {}
    scores = advantages(REWARDS, GROUPS.there)
    taught = teaches(REWARDS, GROUPS.there)
    for row, prompt in enumerate(PROMPTS):
        answers = [int(sid) for sid in GROUPS.sids[row] if sid >= 0]
        of_group = torch.zeros((), dtype=torch.float64)
        for column, sid in enumerate(answers if taught[row] else []):
            of_answer = torch.zeros((), dtype=torch.float64)
            for place in range(len(paths[sid])):
                asked = (prompt, paths[sid], place, over, seen)
                now = log_probability(model, *asked)
                before = now if old is None else log_probability(old, *asked)
                ratio = (now - before.detach()).exp()
                advantage = float(scores[row, column]) * [*LEVELS, 1.0, 1.0][place]
                gain = torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
                further = log_probability(reference, *asked) - now
                of_answer = of_answer + gain - BETA * (further.exp() - further - 1)
            of_group = of_group + of_answer / len(paths[sid])
        target = paths[int(GROUPS.targets[row])]
        likelihood = sum(
            log_probability(model, prompt, target, place, over, seen)
            for place in range(len(target))
        )
        losses.append(-of_group / len(answers) - SFT * likelihood / len(target))
    return torch.stack(losses).mean()


def likelihoods(placed: Placed, loss: LabelLoss, model: PreTrainedModel) -> Any:
    """The log-probabilities of a micro-batch's labels under another model."""
    other = LabelLoss(model, 2, loss.variant)
    return other.likelihoods(**placed.batch.to(CPU)).numpy()  # type: ignore[arg-type]


def tree_loss(
    loss: LabelLoss,
    layout: Layout,
    reference: PreTrainedModel,
    old: PreTrainedModel | None,
    over: str,
) -> Tensor:
    loss.train()
    total = torch.zeros((), dtype=torch.float64)
    found = edges()
    terms: Any = found.terms.astype(np.float64)
    for placed in found.laid_out(replace(layout, prefixes=PREFIXES if over == "allowed" else None)):
        terms[placed.labels, REFERENCE] = likelihoods(placed, loss, reference)
        if old is not None:
            terms[placed.labels, OLD] = likelihoods(placed, loss, old)
        part, _ = loss(**placed.told(terms).to(CPU), scale=1 / len(PROMPTS))
        part.backward()
        total = total + part.detach()
    return total


@pytest.fixture(scope="module")
def slow() -> dict[Any, tuple[float, dict[str, Tensor]]]:
    """Loss and gradients of the slow reference, by what they depend on."""
    return {}


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("clipped", [False, True], ids=["on policy", "clipped"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_loss_and_the_gradients_of_the_formula(
    layout: str, clipped: bool, over: str, slow: dict[Any, tuple[float, dict[str, Tensor]]]
) -> None:
    model, reference = model_of(1), model_of(2).requires_grad_(False)
    old = model_of(3).requires_grad_(False) if clipped else None
    if (over, clipped) not in slow:
        expected = slow_loss(model, reference, old, over)
        expected.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}  # type: ignore[union-attr]
        slow[over, clipped] = expected.item(), gradients
        model.zero_grad()
    expected_loss, gradients = slow[over, clipped]
    prefixes = PREFIXES if over == "allowed" else None
    variant = PolicyLoss(LossConfig(over=over), prefixes, CLIP)  # type: ignore[arg-type]
    found = tree_loss(LabelLoss(model, 2, variant), LAYOUTS[layout], reference, old, over)
    # The factors of advantages are kept in float32.
    assert found.item() == pytest.approx(expected_loss, rel=1e-6)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-5, atol=1e-7)


def test_every_edge_is_a_label_once() -> None:
    """As many labels as there are distinct prefixes of answers, for each prompt."""
    found = edges()
    paths, taught = closed(SIDS, CLOSING), teaches(REWARDS, GROUPS.there)
    expected = 0
    for row in range(len(PROMPTS)):
        asked = {int(GROUPS.targets[row])}
        asked |= {int(sid) for sid in GROUPS.sids[row] if sid >= 0 and taught[row]}
        expected += len({paths[sid][: n + 1] for sid in asked for n in range(len(paths[sid]))})
    assert len(found.terms) == expected
    for layout in LAYOUTS.values():
        labels = np.concatenate([placed.labels for placed in found.laid_out(layout)])
        assert sorted(labels.tolist()) == list(range(expected))


def test_a_group_without_signal_costs_nothing() -> None:
    prompts = [np.array(prompt, np.int32) for prompt in PROMPTS]
    asked = wanted(GROUPS, REWARDS, PATHS, BETA, sft_weight=0)
    assert sorted(set(asked.prompt.tolist())) == [0, 1, 3]
    nothing = wanted(GROUPS, np.zeros_like(REWARDS), PATHS, BETA, sft_weight=0)
    assert edges_of(prompts, TASKS, nothing, PATHS).laid_out(LAYOUTS["tree"]) == []


@pytest.mark.parametrize("architecture", ["gemma2", "qwen2"])
@pytest.mark.parametrize("frozen", [False, True], ids=["full", "frozen"])
def test_models_with_a_soft_cap_and_frozen_ones(
    tmp_path: Folder, architecture: str, frozen: bool
) -> None:
    """One layout against another, through the logits of the model or of the head."""
    losses = []
    for layout in ("bucketed", "tree"):
        model = model_of(1, architecture)
        if frozen:
            freeze(model, torch.tensor(sorted({token for sid in SIDS for token in sid})))
            model.double()
        loss = LabelLoss(model, 2, PolicyLoss(LossConfig(), None, CLIP))
        losses.append(
            tree_loss(loss, LAYOUTS[layout], model_of(2, architecture), None, "vocabulary")
        )
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
