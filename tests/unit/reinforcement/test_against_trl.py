"""The loss and its gradients are those of TRL's GRPOTrainer on the same rollouts."""

from __future__ import annotations

from pathlib import Path as Folder
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_models import make_base, make_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from sidtune.base.ragged import Ragged
from sidtune.batching.layouts import Layout
from sidtune.config.loss import LossConfig
from sidtune.decoding.trie import build_trie
from sidtune.reinforcement.grpo import advantages, wanted
from sidtune.reinforcement.paths import paths_of
from sidtune.reinforcement.policy_loss import OLD, REFERENCE, PolicyLoss
from sidtune.reinforcement.rewards.base import Groups
from sidtune.reinforcement.trees import edges_of
from sidtune.training.loss.label_loss import LabelLoss

BETA, CLIP, PAD, GROUP = 0.3, 0.2, 2, 4
SIDS = [[300 + a, 310 + b, 320 + c] for a in range(3) for b in range(3) for c in range(3)]
PATHS = paths_of(build_trie(Ragged.from_lists(SIDS), 1))
PROMPTS = [[5, 17, 240], [9, 9, 31, 77, 102, 8, 41], [250, 3]]
RANDOM = np.random.default_rng(2)
SIDS_OF = np.stack([RANDOM.permutation(len(SIDS))[:GROUP] for _ in PROMPTS])
REWARDS = RANDOM.random((len(PROMPTS), GROUP))


@pytest.mark.long
def test_loss_and_gradients_are_those_of_trl(tmp_path: Folder) -> None:
    """With a divergence, and with ratios on both sides of the clip."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    make_base(tmp_path / "base")
    model, reference, old = (moved(tmp_path / "base", noise) for noise in (0, 0.05, 0.02))
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path / "trl"),
        num_generations=GROUP,
        per_device_train_batch_size=GROUP,
        beta=BETA,
        # As published; by default TRL multiplies the divergence by the ratio.
        use_bias_correction_kl=False,
        epsilon=CLIP,
        loss_type="grpo",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        report_to=[],
    )
    trainer = trl.GRPOTrainer(
        model=str(tmp_path / "base"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=datasets.Dataset.from_list([{"prompt": "a"}]),
        processing_class=make_tokenizer(),
    )
    given = inputs()
    with torch.no_grad():
        given["old_per_token_logps"] = plain_logs(old, given)
        given["ref_per_token_logps"] = plain_logs(reference, given)
    trainer.current_gradient_accumulation_steps = 1
    theirs = trainer._compute_loss(trainer.model, given)
    theirs.backward()

    asked = wanted(Groups(SIDS_OF, SIDS_OF[:, 0]), REWARDS, PATHS, BETA, sft_weight=0)
    prompts = [np.array(prompt, np.int32) for prompt in PROMPTS]
    edges = edges_of(prompts, np.zeros(len(PROMPTS), np.int64), asked, PATHS)
    variant = PolicyLoss(LossConfig(), None, CLIP)
    loss = LabelLoss(model, 1, variant).train()
    total = torch.zeros(())
    for placed in edges.laid_out(Layout("tree", 900, PAD, token_cost=300)):
        for term, other in ((REFERENCE, reference), (OLD, old)):
            known = LabelLoss(other, 1, variant).likelihoods(
                **placed.batch.to(torch.device("cpu"))  # type: ignore[arg-type]
            )
            edges.terms[placed.labels, term] = known.numpy()
        batch = placed.told(edges.terms).to(torch.device("cpu"))
        part, _ = loss(**batch, scale=1 / len(PROMPTS))
        part.backward()
        total += part.detach()

    assert total.item() == pytest.approx(theirs.item(), rel=1e-4)
    expected = dict(trainer.model.named_parameters())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name].grad, rtol=1e-3, atol=1e-5)


def moved(base: Folder, noise: float) -> PreTrainedModel:
    """The base with a little noise on its weights."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn(weight.shape, generator=generator)
    return model.eval()


def inputs() -> dict[str, Any]:
    """The groups as TRL has them: prompts padded on the left."""
    width = max(map(len, PROMPTS))
    rows = [prompt for prompt in PROMPTS for _ in range(GROUP)]
    answers = PATHS.tokens[SIDS_OF].reshape(-1, 3)
    return {
        "prompt_ids": torch.tensor([[PAD] * (width - len(row)) + row for row in rows]),
        "prompt_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
        "completion_ids": torch.from_numpy(answers),
        "completion_mask": torch.ones(answers.shape, dtype=torch.long),
        "advantages": torch.from_numpy(
            advantages(REWARDS, np.ones(REWARDS.shape, bool)).astype(np.float32)
        ).flatten(),
        "num_items_in_batch": torch.tensor(answers.size),
    }


def plain_logs(model: PreTrainedModel, given: dict[str, Any]) -> torch.Tensor:
    """Log-probabilities of the answers' tokens, `(answers, tokens)`."""
    found = []
    for ids, mask, answer in zip(
        given["prompt_ids"], given["prompt_mask"], given["completion_ids"], strict=True
    ):
        prompt = ids[mask.bool()]
        logits = model(torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1).gather(1, answer[:, None])[:, 0])
    return torch.stack(found)
