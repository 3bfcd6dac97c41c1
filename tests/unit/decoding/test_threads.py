"""A decoder holds nothing of a batch: several threads use one, and no memory stays taken when a
search is over.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as Folder
from typing import Any

import numpy as np
import pytest
import torch
from tests.running import run
from tests.slow_search import random_sids
from tests.tiny_data import tiny_config
from tests.tiny_decoders import DECODERS
from tests.tiny_models import make_config
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel, set_seed

from sidtune.base.ragged import Ragged
from sidtune.decoding.decoder import Decoder, make_decoder
from sidtune.decoding.recommender import Recommender
from sidtune.decoding.search import Search
from sidtune.decoding.trie import build_trie
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.validation_ranking import ValidationRanking

BATCHES = [
    [[5, 17, 240], [9, 9, 31, 77, 102, 8, 41]],
    [[250]],
    [[33, 12, 90, 4, 18], [7, 7], [1, 2, 3]],
]
SEARCH = Search(build_trie(Ragged.from_lists(random_sids(5, (2, 3), 40)), 1), 6, "full", 100_000)
THREADS, ROUNDS = 3, 8
# One that returns what its head gives, one whose head is followed by a soft cap, one that runs
# whole sequences.
MODELS = ("qwen3", "gemma2", "bloom")
assert "bloom" in DECODERS


def model_of(architecture: str) -> PreTrainedModel:
    set_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        make_config(architecture, True, 400)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model


def answers(
    decoder: Decoder[Any], batch: list[list[int]]
) -> tuple[list[list[int]], list[list[float]]]:
    sids, scores = SEARCH.run(decoder, Ragged.from_lists(batch))
    return sids.tolist(), scores.tolist()


@pytest.mark.parametrize("architecture", MODELS)
def test_threads_get_the_answers_of_one_after_the_other(architecture: str) -> None:
    decoder = make_decoder(model_of(architecture))
    expected = [answers(decoder, batch) for batch in BATCHES]
    begin = threading.Barrier(THREADS)

    def ask(first: int) -> list[tuple[int, Any]]:
        begin.wait()
        order = [(first + number) % len(BATCHES) for number in range(ROUNDS)]
        return [(number, answers(decoder, BATCHES[number])) for number in order]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(ask, range(THREADS)):
            for number, answer in found:
                assert answer == expected[number]


@pytest.mark.parametrize("architecture", MODELS)
def test_a_search_between_the_passes_of_another_leaves_it_alone(architecture: str) -> None:
    """The first thread stops inside each of its forward passes until the second has searched once
    more.
    """
    model = model_of(architecture)
    decoder = make_decoder(model)
    expected = [answers(decoder, batch) for batch in BATCHES]
    first, interrupted = threading.get_ident(), []

    def interrupt(*_: Any) -> None:
        if threading.get_ident() == first:
            with ThreadPoolExecutor(1) as pool:
                interrupted.append(pool.submit(answers, decoder, BATCHES[2]).result())

    hook = model.get_input_embeddings().register_forward_hook(interrupt)
    assert answers(decoder, BATCHES[0]) == expected[0]
    hook.remove()
    assert len(interrupted) >= 2
    assert all(answer == expected[2] for answer in interrupted)


def test_two_batches_are_searched_in_turns_by_one_thread() -> None:
    decoder = make_decoder(model_of("qwen3"))
    prompts = [[np.array(prompt, np.int32) for prompt in batch] for batch in BATCHES[:2]]
    steps = [
        (torch.tensor([[0, 0]]), torch.tensor([[7, 8]])),
        (torch.tensor([[1, 0]]), torch.tensor([[9, 10]])),
    ]

    def extended(state: Any, step: int) -> Any:
        parents, tokens = (value.expand(len(state.lengths), -1) for value in steps[step])
        return decoder.extend(state, parents, tokens)

    expected = [extended(extended(decoder.start(batch), 0), 1).hidden for batch in prompts]
    states = [decoder.start(batch) for batch in prompts]
    for step in range(len(steps)):
        states = [extended(state, step) for state in states]
    for state, right in zip(states, expected, strict=True):
        assert torch.equal(state.hidden, right)


def test_a_plain_pass_of_another_thread_gets_logits() -> None:
    model = model_of("qwen3")
    decoder, ids = make_decoder(model), torch.tensor([[5, 6, 7]])
    expected = model(ids).logits
    with decoder.head.at(torch.tensor([0]), torch.tensor([2])), ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(lambda: model(ids).logits).result(), expected)
        assert model(ids).logits.shape == (1, 1, 32)


@pytest.mark.parametrize("loss_first", [True, False])
def test_training_and_decoding_ask_one_head_in_either_order(loss_first: bool) -> None:
    model = model_of("gemma2")
    expected = answers(make_decoder(model_of("gemma2")), BATCHES[0])
    makers: list[Callable[[], Any]] = [
        lambda: LabelLoss(model, 1),
        lambda: answers(make_decoder(model), BATCHES[0]),
    ]
    for make in makers if loss_first else makers[::-1]:
        make()
    for _ in range(2):
        assert answers(make_decoder(model), BATCHES[0]) == expected
    assert model(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, 400)


def test_hidden_states_and_log_probabilities_have_gradients() -> None:
    """What the search computes without them, two tokens behind a prompt, against the
    plain model.
    """
    model = model_of("qwen3")
    decoder = make_decoder(model)
    state = decoder.start([np.array([5, 17, 240], np.int32)])
    state = decoder.extend(state, torch.tensor([[0, 0]]), torch.tensor([[300, 301]]))
    tokens = torch.tensor([304, 305])
    found = (
        decoder.head.logits(state.hidden, tokens) - decoder.head.normaliser(state.hidden)[:, None]
    )
    found[1, 0].backward()
    mine = {
        name: value.grad.clone()
        for name, value in model.named_parameters()
        if value.grad is not None
    }
    model.zero_grad()
    model(torch.tensor([[5, 17, 240, 301]])).logits[0, -1].log_softmax(-1)[304].backward()
    assert mine.keys() == {
        name for name, value in model.named_parameters() if value.grad is not None
    }
    for name, value in model.named_parameters():
        torch.testing.assert_close(mine[name], value.grad, rtol=1e-3, atol=1e-5)


def test_threads_on_one_recommender(tmp_path: Folder) -> None:
    config = tiny_config(tmp_path, training={"epochs": 1})
    run(config)
    recommender = Recommender.load(config.output_dir, device="cpu")
    narrow = recommender.among(["1", "2", "3"])
    questions = [
        (recommender, [["1"], ["2", "3"]]),
        (narrow, [["4", "5", "0"]]),
        (recommender, [["7"]]),
    ]
    expected = [asked.recommend(histories, k=3) for asked, histories in questions]
    begin = threading.Barrier(THREADS)

    def ask(number: int) -> list[Any]:
        begin.wait()
        asked, histories = questions[number]
        return [asked.recommend(histories, k=3) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(THREADS) as pool:
        for found, right in zip(pool.map(ask, range(THREADS)), expected, strict=True):
            assert found == [right] * ROUNDS


def test_nothing_of_a_ranking_outlives_it(
    tmp_path: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a cache nor any other tensor, from one ranking while training to the next."""
    measure, tensors = ValidationRanking.measure, []

    def alive(kind: type) -> list[Any]:
        return [each for each in gc.get_objects() if issubclass(type(each), kind)]

    def watched(self: ValidationRanking, *given: Any, **named: Any) -> dict[str, float]:
        gc.collect()
        before = {id(each) for each in [*alive(torch.Tensor), *alive(DynamicCache)]}
        metrics = measure(self, *given, **named)
        # Without a collection first: memory that waits for one is taken as well.
        assert not [each for each in alive(DynamicCache) if id(each) not in before]
        tensors.append([each.shape for each in alive(torch.Tensor) if id(each) not in before])
        return metrics

    monkeypatch.setattr(ValidationRanking, "measure", watched)
    ranking = {"every": 1, "sample": 7, "beams": 10}
    run(
        tiny_config(
            tmp_path,
            training={"epochs": 1},
            eval={"every": 4, "patience": None, "ranking": ranking},
        )
    )
    assert len(tensors) > 2
    assert not any(tensors), tensors
