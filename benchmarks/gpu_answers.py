"""Checks of what a trained model answers on a GPU, and of reinforcement, which learns from that."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from gpu_runs import EVALUATIONS, WHOLE, Runs
from sidtune.base.ragged import Ragged
from sidtune.config.search import RankOptions
from sidtune.decoding import recommender as recommending
from sidtune.decoding.answers import make_answers
from sidtune.decoding.decoder import SharedPrompts, WholeSequences, make_decoder
from sidtune.decoding.lists import Lists
from sidtune.decoding.prompts import Prompts
from sidtune.decoding.recommender import Recommender
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.evaluation.report import Report
from sidtune.inputs import Inputs
from sidtune.model.load import load_trained
from sidtune.reinforcement.run import reinforce
from sidtune.runs.bundle import read_bundle
from sidtune.tasks.config_file import parse_config
from sidtune.tokenizer.load import load_tokenizer

# Long enough for answers to depend on the history.
TAUGHT: dict[str, Any] = {"name": "taught", "precision": "fp32", "max_steps": 64, "batch_size": 32}
HISTORIES, EVALUATED, BEAMS = 24, 256, 20
SEARCHES = (RankOptions(BEAMS), RankOptions(BEAMS, "trie", exclude_history=True))
# Of scores, which are log-probabilities of whole SIDs. On a CPU they differ by 3e-6 in float32 and
# by 0.014 in bf16; with masks that show other beams, by 0.04 and more.
FLOAT32, BF16 = 1e-3, 0.05
RL: dict[str, Any] = {
    "steps": 4,
    "prompts": 8,
    "group": 4,
    "add_target": True,
    "learning_rate": 1e-3,
    "warmup": 1,
}
# Divergence from a reference that is the same model; four steps end at 0.02 of it.
SAME = 1e-4


class Answers:
    """The checks; each returns nothing, and raises where it fails."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def on_both(self) -> None:
        """The lists of the device are those of the CPU, as a user gets them."""
        folder = self.runs.final(**TAUGHT)
        here, there = (Recommender.load(folder, device) for device in (None, "cpu"))
        assert here.decoder.device.type == self.runs.device.type
        assert isinstance(here.decoder, SharedPrompts)
        for search in SEARCHES:
            same_lists(self.lists(here, search), self.lists(there, search), FLOAT32)

    def shared(self) -> None:
        """Beams that share their prompts get the scores of beams that each run theirs."""
        folder = self.runs.final(**TAUGHT)
        model = load_trained(folder, self.runs.device).float()
        sharing = answering(folder, model)
        apart = answering(folder, model, whole=True)
        assert isinstance(sharing.decoder, SharedPrompts)
        for search in SEARCHES:
            same_lists(self.lists(sharing, search), self.lists(apart, search), FLOAT32)

    def in_bf16(self) -> None:
        """Weights in bfloat16 find what the same weights find in float32, up to rounding."""
        own = load_trained(self.runs.final(name="full-bf16", precision="bf16"), self.runs.device)
        assert own.dtype == (torch.bfloat16 if self.runs.device.type == "cuda" else torch.float32)
        folder = self.runs.final(**TAUGHT)
        model = load_trained(folder, self.runs.device)
        wide = self.lists(answering(folder, model), SEARCHES[0])
        recommender = answering(folder, model.bfloat16())
        assert isinstance(recommender.decoder, SharedPrompts)
        found = self.lists(recommender, SEARCHES[0])
        assert found.sids.min() >= 0
        assert found.sids.max() < recommender.answers.trie.count
        assert all(len(set(row)) == BEAMS for row in found.sids.tolist())
        assert (np.diff(found.scores) <= 0).all()
        assert np.abs(found.scores - wide.scores).max() < BF16, (found.scores, wide.scores)

    def evaluated(self) -> None:
        """The metrics of the device are those of the CPU, of the model without a ranker."""
        folder = self.runs.final(**TAUGHT)
        here = self.report(folder, "here")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recommending, "_best_device", lambda: "cpu")
            there = self.report(folder, "there")
        assert list(here.rankers) == ["model"]
        # Two items whose scores are equal up to rounding may change places.
        left, right = (
            {name: metric.value for name, metric in report.rankers["model"].item.items()}
            for report in (here, there)
        )
        assert left == pytest.approx(right, abs=1 / here.rows), (left, right)
        assert 0 < left["HR@10"] < 1, left

    def reinforced(self, precision: str) -> None:
        """A few steps from a finished run: at first the model is its reference, later it is not."""
        start, name = self.runs.final(**TAUGHT), f"rl-{precision}"
        tree = self.runs.tree(name, precision, max_steps=RL["steps"])
        tree["rl"] = RL | {"start": str(start), "output_dir": tree["output_dir"]}
        tree["eval"] |= {"patience": None, "ranking": {"sample": 32}}
        gain = reinforce(parse_config(tree, "check"))
        assert gain is not None
        steps = self.runs.logged(name, "reward")
        assert len(steps) == RL["steps"]
        assert all(math.isfinite(entry["loss"]) for entry in steps), steps
        assert any(0 < entry["reward"] <= 1 for entry in steps), steps
        assert abs(steps[0]["kl"]) < SAME < steps[-1]["kl"], steps
        assert len(self.runs.logged(name, "eval_ndcg@10")) == 1 + EVALUATIONS
        self.lists(Recommender.load(gain.result.folder), SEARCHES[0])

    def lists(self, recommender: Recommender, search: RankOptions) -> Lists:
        """SIDs for a handful of validation histories."""
        inputs = Inputs(parse_config(self.runs.tree(**WHOLE), "check"))
        history: Ragged = inputs.mixture.source("valid").rows.history
        return recommender.lists(history.take(np.arange(min(HISTORIES, len(history)))), search)

    def report(self, folder: Path, name: str) -> Report:
        """An evaluation over the validation rows."""
        request = EvaluationRequest(
            folder,
            split="valid",
            options=RankOptions(BEAMS),
            limit=EVALUATED,
            output=self.runs.folder / f"evaluated-{name}",
            baselines=False,
            rank=False,
        )
        report = evaluate(request)
        assert report is not None
        return report


def answering(folder: Path, model: PreTrainedModel, whole: bool = False) -> Recommender:
    """A recommender over a model that is loaded.

    Args:
        whole: run prompt and beam anew for every beam and token.
    """
    bundle = read_bundle(folder)
    prompts = Prompts(bundle, load_tokenizer(str(folder)))
    decoder = WholeSequences(model) if whole else make_decoder(model)
    return Recommender(prompts, decoder, bundle, make_answers(bundle, prompts))


def same_lists(left: Lists, right: Lists, tolerance: float) -> None:
    """Equal scores, and the same SIDs wherever neighbours' scores are further apart than
    rounding.
    """
    there = np.isfinite(right.scores)
    assert (np.isfinite(left.scores) == there).all()
    worst = np.abs(left.scores[there] - right.scores[there]).max()
    assert worst < tolerance, f"scores differ by {worst}"
    gaps = np.diff(np.where(there, right.scores, -1e9), prepend=np.inf, append=-np.inf) < -tolerance
    alone = gaps[:, :-1] & gaps[:, 1:] & there
    assert alone.sum() > 0.5 * there.sum(), "too many scores are equal for a comparison"
    assert (left.sids == right.sids)[alone].all()
