"""k-means: right answers that are obvious, an independent slow reference, and degenerate inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidtune.sids.kmeans import distances, kmeans, means, nearest


def slow_nearest(points: np.ndarray, centroids: np.ndarray) -> list[int]:
    return [
        min(range(len(centroids)), key=lambda k: (((point - centroids[k]) ** 2).sum(), k))
        for point in points
    ]


def spread(points: np.ndarray, centroids: np.ndarray) -> float:
    return float(((points - centroids[nearest(points, centroids)]) ** 2).sum())


def test_obvious_clusters_are_found() -> None:
    generator = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    points = (centres[np.arange(200) % 4] + generator.normal(0, 0.1, (200, 2))).astype(np.float32)
    found = kmeans(points, 4, generator)
    order = np.lexsort((found[:, 0].round(), found[:, 1].round()))
    assert np.abs(found[order] - centres).max() < 0.1


@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 8))
def test_nearest_is_what_comparing_all_pairs_gives(seed: int, points: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    # Whole numbers, so that both ways are exact.
    x = generator.integers(-50, 50, (points, 3)).astype(np.float32)
    c = generator.integers(-50, 50, (k, 3)).astype(np.float32)
    assert nearest(x, c).tolist() == slow_nearest(x, c)


def test_distances_lack_the_points_own_length() -> None:
    x, c = np.array([[1, 2]], np.float32), np.array([[3, 3], [1, 2]], np.float32)
    assert (distances(x, c) + (x**2).sum(1)).tolist() == [[5.0, 0.0]]


def test_means_by_hand_and_an_empty_cluster_moves_to_the_farthest_point() -> None:
    points = np.array([[0, 0], [2, 1], [7, 8]], np.float32)
    found = means(points, np.array([0, 0, 0], np.int32), 2, np.zeros((2, 2), np.float32))
    assert found.tolist() == [[3.0, 3.0], [7.0, 8.0]]


@pytest.mark.parametrize("distinct", [1, 3, 8])
def test_fewer_distinct_points_than_centroids_get_one_each(distinct: int) -> None:
    points = np.repeat(np.arange(1, distinct + 1, dtype=np.float32)[:, None], 5, axis=0)
    found = kmeans(points, 8, np.random.default_rng(0))
    assert found.shape == (8, 1)
    assert spread(points, found) == 0


def test_equal_seeds_give_equal_bits_and_no_start_is_far_worse_than_the_best_of_many() -> None:
    points = np.random.default_rng(1).normal(size=(600, 8)).astype(np.float32)
    one, again = (kmeans(points, 16, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one, again)
    best = min(
        spread(points, kmeans(points, 16, np.random.default_rng(seed))) for seed in range(10)
    )
    assert spread(points, one) < 1.05 * best
