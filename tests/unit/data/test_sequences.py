"""Whole histories as sequences: what is joined, what is predicted, and that it is what single rows
predict.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_data import tiny_config, write_rows
from transformers import AutoModelForCausalLM

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.batching.layouts import Layout
from sidtune.checks.run import run_checks
from sidtune.data.leave_one_out import Interactions, leave_one_out
from sidtune.data.rows import Rows
from sidtune.data.sequences import Sequences, backward, joined, one_back, one_by_one
from sidtune.decoding.prompts import Prompts
from sidtune.encoding.corpus import Corpus
from sidtune.inputs import Inputs
from sidtune.tasks import TASKS
from sidtune.tasks.sid_sequence import sequence_part
from sidtune.training.loss.label_loss import LabelLoss

MIXTURE = {"sid_sequence": None}
REVERSED = {"sid_sequence_reversed": None}


def rows_of(given: list[tuple[str, list[int], int]]) -> Rows:
    users, histories, targets = zip(*given, strict=True)
    return Rows(
        pa.array(users, pa.string()), Ragged.from_lists(histories), np.array(targets, np.int32)
    )


def listed(sequences: Sequences) -> list[tuple[list[int], int]]:
    items = sequences.items
    return [(items[row].tolist(), int(sequences.context[row])) for row in range(len(items))]


def walked(walk: list[int], bound: int) -> list[tuple[str, list[int], int]]:
    return [("u", walk[max(0, cut - bound) : cut], walk[cut]) for cut in range(1, len(walk))]


def test_growing_prefixes_become_one_sequence() -> None:
    rows = rows_of([("u", [5], 6), ("u", [5, 6], 7), ("v", [1, 2], 3), ("u", [5, 6, 7], 8)])
    assert listed(joined(rows)) == [([5, 6, 7, 8], 0), ([1, 2, 3], 0)]


def test_a_row_that_does_not_go_on_from_another_predicts_its_target_alone() -> None:
    rows = rows_of([("u", [5], 6), ("u", [9, 6], 7), ("u", [5], 6)])
    assert listed(joined(rows)) == [([5, 6], 0), ([5, 6], 1), ([9, 6, 7], 2)]


def test_sliding_histories_are_joined_and_cut_into_windows() -> None:
    # Histories of at most 3 items: windows of 4, each new one two items further.
    walk = list(range(10, 18))
    assert listed(joined(rows_of(walked(walk, 3)))) == [
        ([10, 11, 12, 13], 0),
        ([12, 13, 14, 15], 2),
        ([14, 15, 16, 17], 2),
    ]
    assert listed(joined(rows_of(walked(walk[:7], 3)))) == [
        ([10, 11, 12, 13], 0),
        ([12, 13, 14, 15], 2),
        ([13, 14, 15, 16], 3),
    ]


def test_one_very_long_history_takes_no_more_than_its_windows() -> None:
    """The whole of it for each window would be a hundred thousand million items."""
    walk = np.arange(1_000_000, dtype=np.int32)
    rows = leave_one_out(
        Interactions(pa.array(["u"]), Ragged(walk, np.array([0, len(walk)]))), "train", 20
    )
    sequences = joined(rows)
    assert (sequences.items.lengths <= 21).all()
    assert sequences.items[len(sequences.items) - 1][-1] == 999_997
    predicted = sequences.items.lengths - sequences.context
    assert predicted.sum() == 999_998, "each item once, those of the first history too"


def test_one_by_one_predicts_targets_alone() -> None:
    rows = rows_of([("u", [5], 6), ("u", [5, 6], 7)])
    assert listed(one_by_one(rows)) == [([5, 6], 1), ([5, 6, 7], 2)]


def test_backward_has_the_newest_first_and_every_item_to_be_predicted() -> None:
    walk = list(range(10, 17))
    assert listed(backward(rows_of([("u", [5], 6), ("u", [5, 6], 7), ("v", [1], 2)]))) == [
        ([7, 6, 5], 0),
        ([2, 1], 0),
    ]
    assert listed(backward(rows_of(walked(walk, 3)))) == [
        ([16, 15, 14, 13], 0),
        ([14, 13, 12, 11], 2),
        ([13, 12, 11, 10], 3),
    ]


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=14), min_size=1, max_size=4),
    st.integers(1, 6),
    st.data(),
)
def test_every_target_is_predicted_once_behind_items_that_came_before_it(
    walks: list[list[int]], bound: int, data: st.DataObject
) -> None:
    """Rows may be missing; what a user's first row has as its history is predicted too."""
    every = [
        (f"u{user}", *row[1:]) for user, walk in enumerate(walks) for row in walked(walk, bound)
    ]
    kept = data.draw(
        st.lists(st.sampled_from(range(len(every))), min_size=1, unique=True).map(sorted)
    )
    given = [every[row] for row in kept]
    longest = max(len(history) for _, history, _ in given)
    sequences = joined(rows_of(given))
    predicted = Counter[tuple[str, int]]()
    for (items, context), row in zip(listed(sequences), sequences.rows.tolist(), strict=True):
        user = given[row][0]
        walk = walks[int(user[1:])]
        assert context < len(items) <= 1 + longest
        assert any(walk[at : at + len(items)] == items for at in range(len(walk)))
        predicted.update((user, item) for item in items[context:])
    first: dict[str, list[int]] = {}
    for user, history, _ in sorted(given, key=lambda row: len(row[1])):
        first.setdefault(user, history)
    wanted = Counter((user, target) for user, _, target in given)
    wanted.update((user, item) for user, history in first.items() for item in history)
    assert predicted == wanted


def test_a_sequence_is_the_sum_of_its_rows(tmp_path: Path) -> None:
    """One pass over a history gives the losses that growing prefixes give in many."""
    inputs = Inputs(tiny_config(tmp_path, tasks=MIXTURE))
    model = AutoModelForCausalLM.from_pretrained(inputs.config.model.base).double()
    model.resize_token_embeddings(len(inputs.vocabulary.tokenizer) + 8)
    loss = LabelLoss(model.eval(), 1)

    def total(sequences: Sequences) -> float:
        source = inputs.mixture.source("train")
        vars(source)["sequences"] = sequences
        (part,) = inputs.mixture.parts(
            "sid_sequence", "train", inputs.config.task_options()["sid_sequence"]
        )
        encoded = inputs.mixture.encoder.encode(part)
        examples = [
            (encoded.input_ids[row], encoded.label_spans[row].reshape(-1, 2), 0)
            for row in range(len(encoded.rows))
        ]
        batches = Layout("bucketed", 4096, 0).micro_batches(examples)
        return float(sum(loss(**batch.to(torch.device("cpu")))[1] for batch in batches))

    rows = inputs.mixture.source("train").rows
    first = rows.take(np.unique(rows.users.to_numpy(zero_copy_only=False), return_index=True)[1])
    openings = Sequences(
        first.history, np.zeros(len(first.target), np.int64), np.arange(len(first.target))
    )
    assert first.history.lengths.tolist() == [1] * len(first.target)
    assert total(joined(rows)) == pytest.approx(total(one_by_one(rows)) + total(openings), rel=1e-9)


def test_a_prompt_is_the_sequence_up_to_its_last_item(tmp_path: Path) -> None:
    template = tmp_path / "separated.yaml"
    template.write_text(
        'sid_sequence: {prompt: ["So far: "], response: ["{sequence_sids}"], separator: ", "}\n'
    )
    for file in (None, str(template)):
        inputs = Inputs(tiny_config(tmp_path, tasks=MIXTURE, template={"file": file}))
        assert inputs.bundle.task == "sid_sequence"
        valid = Corpus(inputs.mixture.valid())
        rows = inputs.mixture.source("valid").rows
        asked, numbers = Prompts(inputs.bundle, inputs.vocabulary.tokenizer).encode(rows.history)
        assert numbers.tolist() == list(range(len(valid)))
        for row in range(len(valid)):
            ids, spans, _ = valid[row]
            assert spans.tolist() == [[len(ids) - 3, len(ids)]]
            assert asked[row].tolist() == ids[:-3].tolist()


def test_the_oldest_items_go_where_a_sequence_is_too_long(tmp_path: Path) -> None:
    inputs = Inputs(tiny_config(tmp_path, tasks=MIXTURE, encoding={"cutoff_len": 64}))
    history = Ragged.from_lists([list(range(8)) * 3])
    asked, _ = Prompts(
        replace(inputs.bundle, longest_history=24), inputs.vocabulary.tokenizer
    ).encode(history)
    text = inputs.vocabulary.tokenizer.decode(asked[0].tolist())
    assert len(asked[0]) + 3 <= 64 < len(asked[0]) + 6
    assert text.startswith("A user's interactions, oldest first:\n<")
    assert text.endswith("<a_2><b_1><c_5><a_0><b_2><c_6><a_0><b_2><c_6>")


def test_the_oldest_items_go_where_a_reversed_sequence_is_too_long(tmp_path: Path) -> None:
    inputs = Inputs(tiny_config(tmp_path, tasks=REVERSED))
    encoder = inputs.mixture.encoder
    sequences = Sequences(
        Ragged.from_lists([[2, 1, 0, 5, 3], [5, 3], [2, 1, 0, 5, 3]]),
        np.array([0, 0, 4]),
        np.zeros(3),
    )
    part = replace(
        sequence_part("sid_sequence_reversed", sequences, np.arange(3)), newest_first=True
    )
    whole = encoder.encode(part)
    assert whole.truncated == 0
    encoder.cutoff_len = len(whole.input_ids[0]) - 4
    cut = encoder.encode(part)
    # Four tokens are two items of three; what is left are the three newest, and one of them is a
    # target in any case.
    assert (cut.truncated, cut.dropped) == (2, 0)
    assert [ids[-9:].tolist() for ids in (cut.input_ids[0], cut.input_ids[2])] == [
        whole.input_ids[0][-15:-6].tolist()
    ] * 2
    assert cut.input_ids[1].tolist() == whole.input_ids[1].tolist()
    assert cut.label_spans.lengths.tolist() == [6, 4, 2]
    assert [
        [token for piece in encoder.explain(part, row) for token in piece.ids] for row in range(3)
    ] == [ids.tolist() for ids in map(cut.input_ids.__getitem__, range(3))]


def test_validation_of_a_reversed_sequence_asks_what_came_before_the_target(tmp_path: Path) -> None:
    """Everything before that was seen in training."""
    rows = rows_of([("u", [5], 6), ("u", [5, 6], 7)])
    assert listed(one_back(rows)) == [([6, 5], 1), ([7, 6], 1)]
    inputs = Inputs(tiny_config(tmp_path, tasks=REVERSED))
    held_out = inputs.mixture.source("valid")
    assert listed(held_out.reversed_sequences) == listed(one_back(held_out.rows))


def test_preview_marks_the_items_that_are_predicted(tmp_path: Path) -> None:
    inputs = Inputs(tiny_config(tmp_path, tasks=MIXTURE))
    encoder, options = inputs.mixture.encoder, inputs.config.task_options()["sid_sequence"]
    (part,) = inputs.mixture.parts("sid_sequence", "valid", options)
    pieces = encoder.explain(part, 0)
    joined_ids = [token for piece in pieces for token in piece.ids]
    encoded = encoder.encode(part)
    assert joined_ids == encoded.input_ids[0].tolist()
    assert [len(piece.ids) for piece in pieces if piece.label] == [3]
    assert pieces[-1].label


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.is_sequence])
def test_sids_that_begin_others_are_refused(tmp_path: Path, task: str) -> None:
    config = tiny_config(tmp_path, tasks={task: None})
    index = config.data.index
    index.write_text(index.read_text().replace('["<a_0>", "<b_0>", "<c_0>"]', '["<a_1>", "<b_0>"]'))
    with pytest.raises(UserError, match=f"task {task}: the SID <a_1><b_0> is a prefix of"):
        Inputs(config).mixture.train()


def test_a_response_with_more_than_the_sequence_is_refused(tmp_path: Path) -> None:
    template = tmp_path / "t.yaml"
    template.write_text('sid_sequence: {prompt: ["x"], response: ["{sequence_sids}", "."]}\n')
    with pytest.raises(UserError, match="must be the whole response"):
        Inputs(
            tiny_config(tmp_path, tasks=MIXTURE, template={"file": str(template)})
        ).mixture.train()


@pytest.mark.parametrize(("task", "fits"), [("sid_sequence", 24), ("sid_sequence_reversed", 29)])
def test_check_warns_of_targets_that_do_not_fit(tmp_path: Path, task: str, fits: int) -> None:
    for cutoff, warned in ((fits - 1, True), (fits, False)):
        inputs = Inputs(tiny_config(tmp_path, tasks={task: None}, encoding={"cutoff_len": cutoff}))
        found = [
            finding for finding in run_checks(inputs) if "which are also targets" in finding.message
        ]
        assert bool(found) == warned


def test_check_looks_at_tokens_where_sids_differ_in_depth(tmp_path: Path) -> None:
    """Two sequences of as many items: the first that comes may be the shorter one."""
    config = tiny_config(tmp_path, tasks=MIXTURE, data={"unique_sids": True})
    write_rows(
        config.data.train,
        [("u", [0, 1, 2], 3), ("v", [6, 7, 6], 7)],
        json.loads(config.data.index.read_text()),
    )
    for cutoff, warned in ((24, True), (25, False)):
        inputs = Inputs(
            config.model_copy(
                update={"encoding": config.encoding.model_copy(update={"cutoff_len": cutoff})}
            )
        )
        found = [
            finding for finding in run_checks(inputs) if "which are also targets" in finding.message
        ]
        assert bool(found) == warned


def test_check_names_a_mixture_that_does_not_teach_what_is_asked(tmp_path: Path) -> None:
    for tasks, warned in ((REVERSED, True), (MIXTURE, False), (MIXTURE | REVERSED, False)):
        found = run_checks(Inputs(tiny_config(tmp_path, tasks=tasks)))
        assert (
            any("which is not a task of the mixture" in finding.message for finding in found)
            == warned
        )
