"""Which prompts the examples of each task give, and what answers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_data import tiny_config

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.decoding.answers import make_answers
from sidtune.decoding.prompts import Prompts
from sidtune.decoding.trie import distinct_sids
from sidtune.inputs import Inputs
from sidtune.reinforcement.prompt_corpus import PromptCorpus


def corpus_of(folder: Path, **sections: Any) -> tuple[PromptCorpus, Inputs, Prompts]:
    inputs = Inputs(tiny_config(folder, **sections))
    prompts = Prompts(inputs.bundle, inputs.vocabulary.tokenizer)
    sids, _ = distinct_sids(inputs.catalogue.sids, prompts.token_ids)
    answers = make_answers(inputs.bundle, prompts)
    return PromptCorpus(inputs.mixture.train(), sids, answers), inputs, prompts


@pytest.mark.parametrize("task", ["sid_next", "sid_sequence"])
def test_prompts_are_those_of_evaluation(tmp_path: Path, task: str) -> None:
    """For every training row, whichever task its example is part of."""
    corpus, inputs, prompts = corpus_of(tmp_path, tasks={task: None})
    rows = inputs.mixture.source("train").rows
    encoded, _ = prompts.encode(rows.history)
    answers = make_answers(inputs.bundle, prompts)
    expected = sorted(
        (encoded[row].tolist(), int(answers.sid_of[item])) for row, item in enumerate(rows.target)
    )
    found = sorted(
        (corpus.prompt(at).tolist(), int(corpus.targets[at])) for at in range(len(corpus))
    )
    assert found == expected
    assert corpus.sizes == [len(rows.target)]


def test_an_entry_is_an_example_whose_labels_are_the_sid(tmp_path: Path) -> None:
    corpus, inputs, _ = corpus_of(
        tmp_path, tasks={"title_to_sid": None, "item_feature": {"directions": "both"}}
    )
    items = len(inputs.catalogue.ids)
    # Titles answer nothing here.
    assert corpus.sizes == [len(inputs.mixture.source("train").rows.target), items]
    tokenizer = inputs.vocabulary.tokenizer
    distinct = sorted({"".join(sid) for sid in inputs.catalogue.sids})
    for at in range(len(corpus)):
        ids, spans, task = corpus[at]
        ((start, end),) = spans.tolist()
        assert task == (at >= corpus.sizes[0])
        assert tokenizer.decode(ids[start:end]) in distinct
        assert end == len(ids) == corpus.lengths[at]
        assert start == len(corpus.prompt(at))
    titles = [tokenizer.decode(corpus.prompt(at)) for at in range(corpus.sizes[0], len(corpus))]
    assert all(
        title in prompt for title, prompt in zip(inputs.catalogue.titles, titles, strict=True)
    )


def test_a_task_that_answers_with_titles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no example of title_next answers with a SID"):
        corpus_of(tmp_path, tasks={"title_next": None})


def test_paths_are_looked_up_by_number(tmp_path: Path) -> None:
    corpus, inputs, prompts = corpus_of(tmp_path, tasks={"sid_next": None})
    sids, _ = distinct_sids(inputs.catalogue.sids, prompts.token_ids)
    assert isinstance(sids, Ragged)
    assert corpus.paths.tokens.tolist() == [sids[number].tolist() for number in range(len(sids))]
    assert np.array_equal(corpus.paths.nodes[:, 0], np.zeros(len(sids)))
