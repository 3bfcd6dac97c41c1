"""How the examples of a step are shared out over processes, and how workers get at them."""

from __future__ import annotations

import json
import pickle
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base

from sidtune.batching.steps import StepLoader, Steps, shared_out
from sidtune.encoding.corpus import Corpus
from sidtune.inputs import Inputs
from sidtune.model.load import load_model
from sidtune.training.arguments import training_arguments
from sidtune.training.make_steps import make_steps


@given(st.lists(st.integers(2, 400), min_size=1, max_size=40), st.integers(1, 5))
def test_every_example_falls_to_one_rank_and_neighbours_stay_together(
    lengths: list[int], ranks: int
) -> None:
    tokens = np.array(lengths)
    examples = np.random.default_rng(0).permutation(len(tokens))
    shares = [shared_out(examples, tokens, rank, ranks) for rank in range(ranks)]
    assert np.concatenate(shares).tolist() == examples.tolist()
    # An even share, give or take half an example at each end.
    for share in shares:
        assert abs(tokens[share].sum() - tokens.sum() / ranks) <= max(lengths)


def made(folder: Path) -> Steps:
    config = tiny_config(folder, training={"batch_size": 16})
    inputs = Inputs(config)
    model = load_model(config.model, inputs.vocabulary, config.seed)
    return make_steps(
        config, inputs.mixture.train(), model, inputs.vocabulary, training_arguments(config)
    )


def test_a_worker_opens_the_files_itself(tmp_path: Path) -> None:
    """What is sent to a worker process that starts afresh is paths and the plan, not
    the examples.
    """
    steps = made(tmp_path)
    sent = pickle.dumps(steps.corpus.tasks)
    assert len(sent) < 1_000
    again = Corpus(pickle.loads(sent))
    assert len(again) == len(steps.corpus)
    assert all(np.array_equal(again[i][0], steps.corpus[i][0]) for i in range(0, len(again), 7))
    assert pickle.loads(pickle.dumps(steps)).share(3).tolist() == steps.share(3).tolist()


def test_workers_change_nothing(tmp_path: Path) -> None:
    steps = made(tmp_path)
    for plain, prepared in zip(
        StepLoader(steps, 99, workers=0), StepLoader(steps, 99, workers=2), strict=True
    ):
        assert plain["label_count"] == prepared["label_count"]
        for left, right in zip(plain["micro_batches"], prepared["micro_batches"], strict=True):
            assert np.array_equal(left.input_ids, right.input_ids)
            assert np.array_equal(left.labels, right.labels)


def test_steps_of_many_passes_need_few_file_descriptors(tmp_path: Path) -> None:
    """A tensor takes one on its way from a worker, and a usual limit is 1,024."""
    steps = made(tmp_path)
    steps.layout = replace(steps.layout, name="padded", limit=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 60, hard))
    try:
        prepared = list(StepLoader(steps, 99, workers=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(prepared[0]["micro_batches"]) == 16


def test_a_model_that_cannot_run_trees_falls_back_with_a_notice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here a window that is shorter than the longest example may be."""
    base = make_base(tmp_path / "base", "mistral")
    header = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(header | {"sliding_window": 64}))
    steps = made(tmp_path)
    assert steps.layout.name == "bucketed"
    notice = " ".join(capsys.readouterr().err.split())
    assert "warning: mistral: prefixes are not shared (layout bucketed instead of tree)" in notice
    (tmp_path / "base" / "config.json").write_text(json.dumps(header | {"sliding_window": 512}))
    assert made(tmp_path).layout.name == "tree"
    assert "prefixes" not in capsys.readouterr().err
