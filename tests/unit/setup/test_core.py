"""How many events a k-core leaves, compared with a slow one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.made_events import START, Event, slow_core, write_events, write_text

from sidtune.base.errors import UserError
from sidtune.setup import core
from sidtune.setup.choose import Chosen
from sidtune.setup.core import with_core
from sidtune.setup.estimate import estimate
from sidtune.setup.look import look_at
from sidtune.setup.machine import Machine


def drawn() -> list[Event]:
    """Events of which a part is in no 4-core."""
    random = np.random.default_rng(0)
    users, items = random.integers(0, 60, 300), random.zipf(1.5, 300).clip(max=60)
    pairs = zip(users, items, strict=True)
    return [(f"u{user}", f"i{item}", START + n, 1.0) for n, (user, item) in enumerate(pairs)]


def as_csv(folder: Path, events: list[Event]) -> Path:
    lines = [f"{user};{item};{time}\n" for user, item, time, _ in events]
    # Without an item it is no event.
    return write_text(folder, "$log.csv", "who;sku;at\n" + "".join(lines) + f"u0;;{START}\n" * 9)


def as_recbole(folder: Path, events: list[Event]) -> Path:
    lines = [f"{user}\t{item}\t{time}\n" for user, item, time, _ in events]
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    return write_text(folder, "shop.inter", head + "".join(lines))


@pytest.mark.parametrize("write", [write_events, as_csv, as_recbole])
def test_it_counts_what_preparing_leaves(
    tmp_path: Path, write: Callable[[Path, list[Event]], Path]
) -> None:
    columns = {"user": "who", "time": "at"} if write is as_csv else {}
    chosen = Chosen({"events": look_at(write(tmp_path, drawn()))}, columns, k_core=4)
    found = with_core(chosen)
    expected = len(slow_core(drawn(), 4))
    assert 50 < expected < 250
    assert found.left == expected
    assert found.targets == round(expected * 0.9)
    uncounted, counted = (estimate(one, Machine(1, 0), 3) for one in (chosen, found))
    assert uncounted.text.endswith("or less by what k_core leaves out")
    assert "k_core" not in counted.text
    assert counted.high < uncounted.high


def test_a_core_of_nothing_is_refused(tmp_path: Path) -> None:
    chosen = Chosen({"events": look_at(write_events(tmp_path, drawn()))}, k_core=100)
    with pytest.raises(UserError, match="k_core: 100 leaves no event"):
        with_core(chosen)


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Chosen({"events": look_at(write_events(tmp_path, drawn()))}, k_core=4)
    monkeypatch.setattr(core, "LARGEST", 100)
    assert with_core(chosen) == chosen
    assert with_core(Chosen(chosen.tables)).left is None, "nothing is left out"
