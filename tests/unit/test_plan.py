"""Which examples make which step."""

from typing import Literal

import numpy as np
import pytest

from sidtune.batching.plan import Plan


def make(
    sizes: list[int],
    weights: list[float],
    batch: int = 4,
    order: Literal["random", "length"] = "random",
    seed: int = 1,
    group_by: Literal["example", "user"] = "example",
) -> Plan:
    """Every third example is about no user, the others about users 0 to 4."""
    count = sum(sizes)
    lengths = np.random.default_rng(0).integers(5, 90, count)
    users = np.where(np.arange(count) % 3 == 2, -1, np.arange(count) % 5)
    return Plan(lengths, users, sizes, weights, batch, order, group_by, seed)


def epoch(plan: Plan, number: int) -> np.ndarray:
    first = number * plan.steps_per_epoch
    return np.concatenate([plan.step(first + index) for index in range(plan.steps_per_epoch)])


@pytest.mark.parametrize(("order", "group_by"), [("random", "example"), ("length", "example"), ("random", "user")])
def test_an_epoch_holds_every_example_once(
    order: Literal["random", "length"], group_by: Literal["example", "user"]
) -> None:
    plan = make([7, 6], [1, 1], order=order, group_by=group_by)
    assert plan.steps_per_epoch == 4
    assert [len(plan.step(index)) for index in range(4)] == [4, 4, 4, 1]
    for number in range(3):
        assert sorted(epoch(plan, number)) == list(range(13))


def test_epochs_differ_and_the_seed_decides() -> None:
    plan = make([40], [1])
    assert not np.array_equal(epoch(plan, 0), epoch(plan, 1))
    assert np.array_equal(epoch(plan, 1), epoch(make([40], [1]), 1))
    assert not np.array_equal(epoch(plan, 0), epoch(make([40], [1], seed=2), 0))


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


def test_order_by_length_makes_steps_of_like_length() -> None:
    def spread(plan: Plan) -> float:
        steps = [plan.lengths[plan.step(index)] for index in range(plan.steps_per_epoch)]
        return float(np.mean([step.max() - step.min() for step in steps]))

    assert spread(make([400], [1], batch=8, order="length")) < 0.2 * spread(make([400], [1], batch=8))


def test_by_user_the_examples_of_a_user_stand_together_in_corpus_order() -> None:
    plan = make([20, 10], [1, 1], group_by="user")
    order = epoch(plan, 0)
    users = plan.users[order]
    assert np.isin(np.unique(plan.users), [-1, 0, 1, 2, 3, 4]).all()
    for user in range(5):
        places = np.flatnonzero(users == user)
        assert len(places) == (plan.users == user).sum()
        assert np.array_equal(places, np.arange(places[0], places[0] + len(places)))
        assert np.array_equal(order[places], np.sort(order[places]))
    assert not np.array_equal(users, plan.users[epoch(plan, 1)]), "users are shuffled anew"


def test_by_user_examples_about_no_user_are_shuffled_one_by_one() -> None:
    plan = make([60], [1], group_by="user")
    alone = np.flatnonzero(plan.users[epoch(plan, 0)] < 0)
    assert (np.diff(alone) > 1).sum() >= 3, "users stand between them"


def test_by_user_repeats_stand_with_their_user() -> None:
    plan = make([12], [2], group_by="user", batch=24)
    users = plan.users[plan.step(0)]
    assert len(users) == 24
    changes = (np.diff(users[users >= 0]) != 0).sum()
    assert changes == 4, "five users, each in one piece"
