"""Sampling without replacement: exact probabilities, valid and distinct SIDs, the same in any
batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.slow_search import Path, Reference, closed, random_sids
from tests.tiny_models import make_base
from transformers import AutoModelForCausalLM, PreTrainedModel

from sidtune.base.ragged import Ragged
from sidtune.decoding.decoder import SharedPrompts
from sidtune.decoding.trie import Hint, build_trie
from sidtune.reinforcement.sampling import sample

CLOSING, PROMPT, DRAWS, COUNT = 1, [5, 17, 240], 6_000, 3
# Seven SIDs of one to three tokens.
SIDS: list[Path] = random_sids(4, (1, 2, 3), 7, width=3)
TRIE = build_trie(Ragged.from_lists(SIDS), CLOSING)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    base = make_base(tmp_path_factory.mktemp("base"))
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base)
    # Told apart, so that a wrong distribution would show.
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3)  # type: ignore[operator,union-attr]
    return model.eval()


def drawn(model: PreTrainedModel, prompts: list[list[int]], seeds: range, **options: Any) -> list:  # type: ignore[type-arg]
    decoder = SharedPrompts(model)
    state = decoder.start([np.array(prompt, np.int32) for prompt in prompts])
    draws = [np.random.default_rng([7, seed]) for seed in seeds]
    given = {"count": COUNT, "temperature": 1.0, **options}
    return sample(TRIE, decoder, state, draws=draws, **given).tolist()


def chances(model: PreTrainedModel, temperature: float) -> np.ndarray:  # type: ignore[type-arg]
    """The probability of each SID, level by level."""
    paths, found = closed(SIDS, CLOSING), []
    reference = Reference(model, PROMPT, paths, "full")
    for path in paths:
        chance = 1.0
        for place in range(len(path)):
            allowed = reference.children(path[:place])
            logs = [reference.log_probability(path[:place], token) for token in allowed]
            shares = np.exp(np.array(logs) / temperature)
            chance *= shares[allowed.index(path[place])] / shares.sum()
        found.append(chance)
    return np.array(found)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_each_set_is_as_likely_as_drawing_one_after_the_other(
    model: PreTrainedModel, temperature: float
) -> None:
    """The chance of each pair of SIDs, within four standard errors."""
    chance = chances(model, temperature)
    assert chance.sum() == pytest.approx(1, abs=1e-5)
    found = drawn(model, [PROMPT] * DRAWS, range(DRAWS), count=2, temperature=temperature)
    seen = np.zeros((len(SIDS), len(SIDS)))
    for first, second in found:
        seen[min(first, second), max(first, second)] += 1 / DRAWS
    for a in range(len(SIDS)):
        for b in range(a + 1, len(SIDS)):
            expected = chance[a] * chance[b] * (1 / (1 - chance[a]) + 1 / (1 - chance[b]))
            error = (expected * (1 - expected) / DRAWS) ** 0.5
            assert abs(seen[a, b] - expected) < 4 * error + 1e-3, (a, b)


def test_answers_are_distinct_and_in_the_order_of_their_probability(
    model: PreTrainedModel,
) -> None:
    chance = chances(model, 1.0)
    for answers in drawn(model, [PROMPT] * 20, range(20)):
        assert len(set(answers)) == COUNT
        likely = chance[answers]
        assert (np.diff(likely) <= 1e-6).all()


def test_with_room_for_all_every_sid_is_drawn_once(model: PreTrainedModel) -> None:
    (answers,) = drawn(model, [PROMPT], range(1), count=10)
    assert sorted(sid for sid in answers if sid >= 0) == list(range(len(SIDS)))


def test_behind_a_hint_every_sid_that_begins_with_it_is_drawn_once(
    model: PreTrainedModel,
) -> None:
    paths = closed(SIDS, CLOSING)
    for target, path in enumerate(paths):
        hint = Hint(torch.tensor([target]), 1)
        (answers,) = drawn(model, [PROMPT], range(1), count=10, hint=hint)
        expected = [sid for sid, other in enumerate(paths) if other[0] == path[0]]
        assert sorted(sid for sid in answers if sid >= 0) == expected


def test_a_draw_does_not_depend_on_its_batch(model: PreTrainedModel) -> None:
    prompts = [PROMPT, [9, 9, 31, 77, 102], [250]]
    together = drawn(model, prompts, range(3))
    alone = [drawn(model, [prompt], range(at, at + 1))[0] for at, prompt in enumerate(prompts)]
    assert together == alone
