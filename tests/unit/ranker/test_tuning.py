from __future__ import annotations

import numpy as np
import pytest
from tests.unit.ranker.making import made_up

from sidtune.base.ragged import Ragged
from sidtune.ranker import pairs, tuning
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

    chosen = best_setting(valid, ITEMS, lambda history, shown: list(settings[:, next(chunks)]))
    assert next(chunks, None) is None
    gains = [gain(setting) for setting in settings]
    assert chosen == gains.index(max(gains)) == 4


def test_of_many_items_some_are_shown_and_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    _, valid = made_up(40, ITEMS, 0)
    monkeypatch.setattr(tuning, "MOST_ITEMS", 5)
    seen: list[int] = []

    def scores(history: Ragged, shown: np.ndarray) -> list[np.ndarray]:
        seen.extend(shown.tolist())
        return [np.zeros((len(history), len(shown)))] * 2

    assert best_setting(valid, ITEMS, scores) == 0
    assert set(valid.target.tolist()) <= set(seen)
    assert len(seen) == len(set(seen)) <= 5 + len(set(valid.target.tolist()))
