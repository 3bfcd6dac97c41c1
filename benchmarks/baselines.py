"""Most popular and repeat last at a million items, milliseconds a row: lists by popularity against
scores.

The same made-up rows (histories of ten items, two items a SID, lists of 50) are ranked both ways in
turn, and both must give the same ranks and lists, or the script fails. A figure is the median over
the rounds.

    python benchmarks/baselines.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, place_of, repeat, row_of
from sidtune.metrics.ranks import Ranking
from sidtune.opponents.baselines import Listing, rank_rows
from sidtune.opponents.popular import Popular

ITEMS, ROWS, HISTORY, DEPTH, ROUNDS = 1_000_000, 40, 10, 50, 5
OUTCOME = Path(__file__).with_suffix(".json")


def main() -> None:
    """Rank, compare, print and keep the figures."""
    draw = np.random.default_rng(0)
    # As popularity is: few items have most of the users.
    users = draw.zipf(1.5, ITEMS).clip(max=100_000)
    sid_of, history = np.arange(ITEMS) // 2, _histories(draw)
    target = draw.integers(0, ITEMS, ROWS)
    listing, popular = Listing.of(users, sid_of, DEPTH), Popular.of(users, sid_of, DEPTH, None)
    none = repeat([], ROWS)
    results = {}
    for name, scores, front in (
        ("most popular", _nothing, none),
        ("repeat last", _latest, history.reversed()),
    ):
        old, new = [], []
        for _ in range(ROUNDS):
            dense, seconds = _timed(partial(rank_rows, "scores", scores, history, target, listing))
            old.append(seconds)
            direct, seconds = _timed(partial(popular.rank_rows, "lists", front, none, target))
            new.append(seconds)
            _refuse_difference(dense, direct)
        results[name] = {"scores": _milliseconds(old), "lists": _milliseconds(new)}
        print(
            f"{name:<14}{results[name]['scores']:>10.3f} ms with"
            f" scores{results[name]['lists']:>10.3f} ms with lists"
        )
    tree = {"items": ITEMS, "rows": ROWS, "rounds": ROUNDS, "milliseconds a row": results}
    OUTCOME.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def _histories(draw: np.random.Generator) -> Ragged:
    return Ragged.from_lengths(draw.integers(0, ITEMS, ROWS * HISTORY), np.full(ROWS, HISTORY))


def _nothing(history: Ragged) -> NDArray[np.float64]:
    return np.zeros((len(history), ITEMS))


def _latest(history: Ragged) -> NDArray[np.float64]:
    scores = _nothing(history)
    np.maximum.at(scores, (row_of(history), history.values), place_of(history) + 1)
    return scores


def _timed(rank: Callable[[], Ranking]) -> tuple[Ranking, float]:
    began = time.perf_counter()
    return rank(), time.perf_counter() - began


def _milliseconds(seconds: list[float]) -> float:
    """Of one row."""
    return round(1000 * statistics.median(seconds) / ROWS, 3)


def _refuse_difference(left: Ranking, right: Ranking) -> None:
    for column in ("sid_ranks", "item_ranks", "items"):
        np.testing.assert_array_equal(getattr(left, column), getattr(right, column), column)


if __name__ == "__main__":
    main()
