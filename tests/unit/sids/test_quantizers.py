"""What every quantiser must do, on vectors whose structure is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sidtune.base.errors import UserError
from sidtune.sids.codebooks import Codebooks
from sidtune.sids.quantizers import QUANTIZERS, rq_vae
from sidtune.sids.quantizers.balanced import SLACK, assign_bounded


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rq_vae, "STEPS", 200)
    monkeypatch.setattr(rq_vae, "HIDDEN", (64, 32))


def vectors(items: int = 400, dimensions: int = 12, seed: int = 0) -> np.ndarray:
    """Items in 8 groups of 8 sub-groups."""
    generator = np.random.default_rng(seed)
    group, below = generator.integers(0, 8, items), generator.integers(0, 8, items)
    centres, offsets = (
        generator.normal(0, 3, (8, dimensions)),
        generator.normal(0, 1, (8, dimensions)),
    )
    noise = generator.normal(0, 0.1, (items, dimensions))
    return (centres[group] + offsets[below] + noise).astype(np.float32)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_rebuild_most_of_the_vectors_and_repeat_to_the_bit(name: str) -> None:
    x = vectors()
    (books, codes), (again, same) = (
        QUANTIZERS[name](x, [8, 8, 4], np.random.default_rng(3)) for _ in range(2)
    )
    assert codes.shape == (400, 3)
    assert books.sizes == [8, 8, 4]
    assert (codes < np.array(books.sizes)).all()
    assert np.array_equal(codes, same)
    assert all(
        np.array_equal(left, right) for left, right in zip(books.levels, again.levels, strict=True)
    )
    latents = books.project(x)
    left = books.left_over(latents, codes, 3)
    # Most of it even where an encoder has had hardly a step.
    assert (left**2).sum() < 0.5 * ((latents - latents.mean(0)) ** 2).sum()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codebooks_survive_their_file_and_give_the_same_codes(name: str) -> None:
    x = vectors()
    books, codes = QUANTIZERS[name](x, [8, 8], np.random.default_rng(3))
    back = Codebooks.of(books.tensors())
    again = back.encode(back.project(x))
    assert np.array_equal(again, books.encode(books.project(x)))
    # Whoever comes later with the same vector gets the same SID, but for bounds that are met
    # already.
    assert name == "balanced" or np.array_equal(again, codes)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("items", [2, 5])
def test_fewer_items_than_half_the_codes_are_quantised_too(name: str, items: int) -> None:
    x = vectors(items)
    books, codes = QUANTIZERS[name](x, [16, 16], np.random.default_rng(3))
    assert books.sizes == [16, 16]
    assert len(np.unique(codes, axis=0)) == items
    assert np.isfinite(np.concatenate(books.levels)).all()


def test_residual_codes_by_hand() -> None:
    books = Codebooks(
        [np.array([[0, 0], [10, 0]], np.float32), np.array([[0, 1], [0, -1]], np.float32)]
    )
    assert books.encode(np.array([[9, 2], [1, -3]], np.float32)).tolist() == [[1, 0], [0, 1]]


def test_balanced_clusters_keep_their_bound_at_every_level() -> None:
    x = vectors(500)
    # Nine in ten items are nearly alike.
    x[:450] = x[0] + 0.01 * x[:450]
    _, codes = QUANTIZERS["balanced"](x, [8, 8], np.random.default_rng(0))
    for level in range(2):
        assert np.bincount(codes[:, level]).max() <= math.ceil(SLACK * 500 / 8)


def test_bounded_assignment_by_hand() -> None:
    points, centroids = (
        np.array([[0], [1], [2], [10]], np.float32),
        np.array([[0], [10]], np.float32),
    )
    # Two each: the point 2 is the one that finds no room.
    assert assign_bounded(points, centroids, 2).tolist() == [0, 0, 1, 1]


def test_product_codes_need_a_dimension_a_level() -> None:
    with pytest.raises(
        UserError, match="product codes of 3 levels need as many dimensions, found 2"
    ):
        QUANTIZERS["product"](vectors(40, 2), [4, 4, 4], np.random.default_rng(0))
