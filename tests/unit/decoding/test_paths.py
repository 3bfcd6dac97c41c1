"""The path to an item, against one plain forward pass for every prefix."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.slow_search import Reference, closed, random_sids
from tests.unit.decoding.test_threads import model_of

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.config.search import Normalize
from sidtune.decoding.answers import Answers
from sidtune.decoding.decoder import make_decoder
from sidtune.decoding.paths import END, sid_path
from sidtune.decoding.search import Search
from sidtune.decoding.trie import build_trie

PROMPT, CLOSING, SHOWN = [5, 17, 240], 1, 3
SIDS = sorted([*random_sids(5, (2, 3), 25), (300, 301), (300, 301, 302), (300, 301, 303)])
HISTORY = Ragged.from_lists([[0]])


def recommender_of(architecture: str) -> Any:
    """The parts of a recommender that a path needs, one item a SID."""
    answers = Answers(
        build_trie(Ragged.from_lists(SIDS), CLOSING),
        Ragged.column(np.arange(len(SIDS), dtype=np.int32)),
        np.arange(len(SIDS)),
    )
    tokens = sorted({token for sid in SIDS for token in sid})
    prompts = SimpleNamespace(
        encode=lambda history: (Ragged.from_lists([PROMPT]), np.array([0])),
        token_ids={f"<{token}>": token for token in tokens},
        closing=CLOSING,
    )
    decoder = make_decoder(model_of(architecture))
    return SimpleNamespace(prompts=prompts, decoder=decoder, answers=answers)


@pytest.mark.parametrize("normalize", ["full", "trie"])
@pytest.mark.parametrize("architecture", ["qwen3", "bloom"])
def test_every_step_is_what_a_plain_model_says(architecture: str, normalize: Normalize) -> None:
    recommender = recommender_of(architecture)
    paths = closed(SIDS, CLOSING)
    reference = Reference(recommender.decoder.model, PROMPT, paths, normalize)
    for item in (0, SIDS.index((300, 301)), SIDS.index((300, 301, 303)), len(SIDS) - 1):
        steps = sid_path(recommender, HISTORY, item, normalize, SHOWN)
        assert len(steps) == len(paths[item])
        for depth, step in enumerate(steps):
            prefix, token = paths[item][:depth], paths[item][depth]
            assert step.token == (END if token == CLOSING else f"<{token}>")
            scores = {
                other: reference.log_probability(prefix, other)
                for other in reference.children(prefix)
            }
            assert step.log_probability == pytest.approx(scores[token], abs=1e-4)
            ordered = sorted(scores.values(), reverse=True)
            assert step.allowed == len(scores)
            assert ordered[step.place - 1] == pytest.approx(scores[token], abs=1e-4)
            assert [b.log_probability for b in step.best] == pytest.approx(
                ordered[:SHOWN], abs=1e-4
            )


def test_the_steps_sum_to_the_score_of_the_search() -> None:
    recommender = recommender_of("qwen3")
    search = Search(recommender.answers.trie, 50, "full", 100_000)
    sids, scores = search.run(recommender.decoder, Ragged.from_lists([PROMPT]))
    for sid, score in zip(sids[0].tolist()[:5], scores[0].tolist()[:5], strict=True):
        steps = sid_path(recommender, HISTORY, sid)
        assert sum(step.log_probability for step in steps) == pytest.approx(score, abs=1e-4)


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    recommender = recommender_of("qwen3")
    recommender.prompts.encode = lambda history: (Ragged.from_lists([]), np.zeros(0, int))
    recommender.bundle = SimpleNamespace(cutoff_len=99)
    with pytest.raises(UserError, match="exceeds cutoff_len=99"):
        sid_path(recommender, HISTORY, 0)
