"""Later events as training rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("ibis", reason="pip install 'sidtune[prepare]'")
pytest.importorskip("duckdb", reason="pip install 'sidtune[prepare]'")

from tests.made_events import write_text
from tests.unit.ranker.making import catalogue, rows_of

from sidtune.config.events import EventsConfig
from sidtune.data.rows import Rows
from sidtune.data.sequences import whole
from sidtune.files.ids import as_users
from sidtune.pipeline.later import with_later

LOG = """who,item,time,kind,stars
u,3,1500000000,view,
u,1,1500000001,buy,5
u,2,1500000002,buy,4
u,0,1500000003,buy,1
"""


@pytest.mark.parametrize(
    ("keys", "pairs"),
    [
        ({}, [([0, 2], 3), ([0, 2, 3], 1), ([0, 2, 3, 1], 2), ([0, 2, 3, 1, 2], 0)]),
        ({"type": "kind", "types": ["buy"]}, [([0, 2], 1), ([0, 2, 1], 2), ([0, 2, 1, 2], 0)]),
        (
            {"type": "kind", "types": {"buy": 2}, "rating": "stars", "min_rating": 4},
            [([0, 2], 1), ([0, 2, 1], 2)],
        ),
    ],
)
def test_only_events_of_the_runs_kinds_count(
    tmp_path: Path, keys: dict[str, Any], pairs: list[tuple[list[int], int]]
) -> None:
    file = write_text(tmp_path, "later.csv", LOG)
    mapping = EventsConfig.model_validate({"files": "x.csv", "user": "who", "k_core": 5, **keys})
    train = replace(rows_of([("u", [0], 2)]), users=as_users(pa.array(["u"])))
    found = with_later(file, mapping, catalogue(4), train, [train], None)
    histories = [found.rows.history[row].tolist() for row in range(len(found.rows.target))]
    assert list(zip(histories, found.rows.target.tolist(), strict=True)) == [([0], 2), *pairs]
    assert found.events == len(pairs)


@pytest.mark.parametrize("longest", [None, 5])
def test_later_events_continue_what_is_known_of_a_user(tmp_path: Path, longest: int | None) -> None:
    """As if all of it had been there when the rows were made: the sequences that sources count in
    are the same.
    """
    lines = [f"{user},{item},{1_500_000_000 + item}" for user in "uw" for item in range(6, 10)]
    file = write_text(tmp_path, "later.csv", "\n".join(["user_id,item_id,timestamp", *lines]))

    def rows(upto: int) -> Rows:
        made = rows_of([("u", list(range(at)), at) for at in range(1, upto)]).latest(longest)
        return replace(made, users=as_users(made.users.cast(pa.string())))

    first = rows(4)
    parts = [first.take(np.arange(2)), first]
    found = with_later(file, None, catalogue(10), rows(6), [rows(6), *parts], longest).rows
    own = found.take(np.flatnonzero(np.array(found.users.to_pylist()) == "u"))
    expected = rows(10)
    assert own.target.tolist() == expected.target.tolist()
    assert own.history.values.tolist() == expected.history.values.tolist()
    sequences = whole(own).items
    assert [sequences[row].tolist() for row in range(len(sequences))] == [list(range(10))]
    others = found.take(np.arange(len(own.target), len(found.target)))
    assert others.target.tolist() == [7, 8, 9]
