"""Which examples make which step."""

import dataclasses
from typing import Literal

import numpy as np
import pytest

from sidtune.batching.plan import PIECE, Plan


def make(
    sizes: list[int],
    weights: list[float],
    batch: int = 4,
    seed: int = 1,
    group_by: Literal["example", "user"] = "example",
) -> Plan:
    """Every third example is about no history, the others about histories 0 to 4."""
    count = sum(sizes)
    histories = np.where(np.arange(count) % 3 == 2, -1, np.arange(count) % 5)
    return Plan(histories, sizes, weights, batch, group_by, seed)


def epoch(plan: Plan, number: int) -> np.ndarray:
    first = number * plan.steps_per_epoch
    return np.concatenate([plan.step(first + index) for index in range(plan.steps_per_epoch)])


@pytest.mark.parametrize("group_by", ["example", "user"])
def test_an_epoch_holds_every_example_once(group_by: Literal["example", "user"]) -> None:
    plan = make([7, 6], [1, 1], group_by=group_by)
    assert plan.steps_per_epoch == 4
    assert [len(plan.step(index)) for index in range(4)] == [4, 4, 4, 1]
    for number in range(3):
        assert sorted(epoch(plan, number)) == list(range(13))


def test_epochs_differ_and_the_seed_decides() -> None:
    plan = make([40], [1])
    assert not np.array_equal(epoch(plan, 0), epoch(plan, 1))
    assert np.array_equal(epoch(plan, 1), epoch(make([40], [1]), 1))
    assert not np.array_equal(epoch(plan, 0), epoch(make([40], [1], seed=2), 0))


def test_a_later_stage_goes_on_where_the_first_left_off() -> None:
    plan = make([30], [1])
    later = dataclasses.replace(plan, first=5)
    assert all(np.array_equal(later.step(number), plan.step(number + 5)) for number in range(20))


def test_steps_can_be_asked_for_in_any_order() -> None:
    plan = make([30], [1])
    later = plan.step(17).copy()
    plan.step(0)
    plan.step(40)
    assert np.array_equal(plan.step(17), later)


def test_weight_two_and_a_half_sees_every_example_two_or_three_times() -> None:
    plan = make([10, 4], [2.5, 0.5], batch=5)
    counts = np.bincount(epoch(plan, 0), minlength=14)
    assert plan.examples_per_epoch == 27
    assert sorted(counts[:10]) == [2] * 5 + [3] * 5
    assert sorted(counts[10:]) == [0, 0, 1, 1]
    other = np.bincount(epoch(plan, 1), minlength=14)
    assert not np.array_equal(counts, other), "a fraction draws a new share each epoch"


def test_a_task_never_vanishes() -> None:
    plan = make([10, 3], [1, 0.01])
    assert np.isin(epoch(plan, 0), [10, 11, 12]).sum() == 1


def pieces(plan: Plan) -> list[list[int]]:
    """The first epoch, cut where the history changes or four examples have followed one another."""
    found: list[list[int]] = []
    for example in epoch(plan, 0).tolist():
        key = plan.histories[example]
        if not found or key < 0 or plan.histories[found[-1][0]] != key or len(found[-1]) == PIECE:
            found.append([])
        found[-1].append(example)
    return found


def test_by_user_a_few_examples_of_a_history_stand_together() -> None:
    plan = make([60, 40], [1, 1], group_by="user", batch=10)
    known = [piece for piece in pieces(plan) if plan.histories[piece[0]] >= 0]
    sizes = [len(piece) for piece in known]
    # Five histories of 13 or 14 examples make three or four pieces each.
    assert sum(sizes) == (plan.histories >= 0).sum() == 67
    assert sorted(sizes)[-12:] == [4] * 12
    assert len(sizes) <= 5 * 5, "hardly any is cut without need"
    order = epoch(plan, 0)
    assert not np.array_equal(plan.histories[order], plan.histories[epoch(plan, 1)]), (
        "pieces are shuffled anew"
    )


def test_by_user_neighbours_in_the_file_share_a_piece_across_tasks() -> None:
    """Two tasks over the same eight rows of one user: a piece holds two rows, each by
    both tasks.
    """
    plan = Plan(np.zeros(16, np.int64), [8, 8], [1, 1], 4, "user", 5)
    steps = [sorted(plan.step(index).tolist()) for index in range(4)]
    assert sorted(steps) == [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]]


def test_by_user_examples_about_no_history_are_shuffled_one_by_one() -> None:
    plan = make([60], [1], group_by="user")
    alone = np.flatnonzero(plan.histories[epoch(plan, 0)] < 0)
    assert (np.diff(alone) > 1).sum() >= 3, "others stand between them"


def test_by_user_no_example_stands_in_a_piece_twice() -> None:
    """Four passes over a task are four looks at an example, not one with four times the weight."""
    plan = Plan(np.repeat([0, 1], 4), [8], [4], 4, "user", 1)
    for index in range(8):
        assert len(set(plan.step(index).tolist())) == 4
