"""Which examples make which step."""

import numpy as np
import pytest

from sidtune.batching.plan import Plan


def make(sizes: list[int], weights: list[float], batch: int = 4, order: str = "random", seed: int = 1) -> Plan:
    lengths = np.random.default_rng(0).integers(5, 90, sum(sizes))
    return Plan(lengths, sizes, weights, batch, order, seed)  # type: ignore[arg-type]


def epoch(plan: Plan, number: int) -> np.ndarray:
    first = number * plan.steps_per_epoch
    return np.concatenate([plan.step(first + index) for index in range(plan.steps_per_epoch)])


@pytest.mark.parametrize("order", ["random", "length"])
def test_an_epoch_holds_every_example_once(order: str) -> None:
    plan = make([7, 6], [1, 1], order=order)
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
