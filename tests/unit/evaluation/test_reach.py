"""How targets can be reached, beside the products of whole matrices that say the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from sidtune.base.ragged import Ragged
from sidtune.data.rows import Rows
from sidtune.evaluation.reach import _has, reached
from sidtune.opponents.baselines import Baselines

ITEMS = 25


def some_rows(count: int, seed: int, items: int = ITEMS) -> Rows:
    random = np.random.default_rng(seed)
    histories = [random.integers(items, size=random.integers(1, 6)).tolist() for _ in range(count)]
    users = pa.array([f"u{row}" for row in range(count)]).dictionary_encode()
    return Rows(users, Ragged.from_lists(histories), random.integers(items, size=count))


def slowly_reached(rows: Rows, counted: Baselines) -> list[int]:
    """From the products of the histories with both matrices."""
    direct, together = counted.direct.toarray(), counted.together.toarray()
    found = []
    for row, target in enumerate(rows.target.tolist()):
        history = rows.history[row].tolist()
        told = (
            target in history,
            direct[history[-1], target] > 0,
            sum(together[item, target] for item in history) > 0,
            counted.users[target] > 0,
            True,
        )
        found.append(told.index(True))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_products_of_whole_matrices_say(seed: int) -> None:
    # The last items are in no training row.
    counted = Baselines.fit(some_rows(15, seed, ITEMS - 4), None, ITEMS)
    rows = some_rows(300, seed + 100)
    found = reached(rows, counted)
    assert found.tolist() == slowly_reached(rows, counted)
    assert set(found.tolist()) == {0, 1, 2, 3, 4}


def test_entries_of_a_matrix() -> None:
    random = np.random.default_rng(0)
    dense = random.random((7, 9)) * (random.random((7, 9)) < 0.3)
    # An empty row in the middle, and one at the end.
    dense[[3, 6]] = 0
    row, column = (places.ravel() for places in np.indices(dense.shape))
    assert _has(sp.csr_array(dense), row, column).tolist() == (dense > 0).ravel().tolist()
    assert not _has(sp.csr_array((7, 9)), row, column).any()
