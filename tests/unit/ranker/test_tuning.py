from __future__ import annotations

import numpy as np
import pytest
from tests.unit.ranker.making import made_up

from sidtune.ranker import pairs
from sidtune.ranker.tuning import best_setting

ITEMS, ROWS_AT_ONCE = 30, 7


def test_the_setting_with_the_best_ndcg_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    _, valid = made_up(40, ITEMS, 0)
    rows = np.arange(len(valid.target))
    settings = np.random.default_rng(1).random((6, len(rows), ITEMS))
    settings[4, rows, valid.target] += 0.5
    monkeypatch.setattr(pairs, "CHUNK_SCORES", ROWS_AT_ONCE * ITEMS)
    chunks = iter(np.split(rows, range(ROWS_AT_ONCE, len(rows), ROWS_AT_ONCE)))

    def gain(setting: np.ndarray) -> float:
        each = zip(setting, valid.target, strict=True)
        ranks = [1 + int((row > row[target]).sum()) for row, target in each]
        return sum(1 / np.log2(1 + rank) for rank in ranks if rank <= 10)

    chosen = best_setting(valid, ITEMS, lambda history: list(settings[:, next(chunks)]))
    assert next(chunks, None) is None
    gains = [gain(setting) for setting in settings]
    assert chosen == gains.index(max(gains)) == 4
