"""How many events a k-core leaves, compared with a slow one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.made_events import START, Event, prepared, slow_core, write_events, write_text

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
    found = with_core(chosen, given=False)
    expected = len(slow_core(drawn(), 4))
    assert 50 < expected < 250
    assert found.left == expected
    assert found.targets == round(expected * 0.9)
    uncounted, counted = (estimate(one, Machine(1, 0), 3) for one in (chosen, found))
    assert uncounted.text.endswith("or less by what k_core leaves out")
    assert "k_core" not in counted.text
    assert counted.high < uncounted.high


@pytest.mark.parametrize("name", ["items.csv", "shop.item.json"])
def test_events_of_items_that_the_catalogue_leaves_out_do_not_count(
    tmp_path: Path, name: str
) -> None:
    # It has no item 0, item 1 has no title, and events write item 2 in another way.
    titles = {f"i{item}": "" if item == 1 else f"title {item}" for item in range(1, 60)}
    if name.endswith(".json"):
        text = json.dumps({item: {"title": title} for item, title in titles.items()})
    else:
        text = "item_id,title\n" + "".join(f"{item},{titles[item]}\n" for item in titles)
    events = [(user, " i2 " if item == "i2" else item, *rest) for user, item, *rest in drawn()]
    tables = {
        "events": look_at(write_events(tmp_path, events)),  # type: ignore[arg-type]
        "catalogue": look_at(write_text(tmp_path, name, text)),
    }
    assert tables["catalogue"].role in ("catalogue", "items")
    known = [event for event in drawn() if titles.get(event[1])]
    expected = len(slow_core(known, 4))
    assert 10 < expected < len(slow_core(drawn(), 4))
    assert with_core(Chosen(tables, k_core=4), given=True).left == expected
    file = {"file": str(tables["catalogue"].path)}
    done = prepared(tmp_path, file, files=str(tables["events"].path), k_core=4)
    assert done.summary["result"]["events"] == expected


def test_a_catalogue_of_other_items_is_named(tmp_path: Path) -> None:
    tables = {
        "events": look_at(write_events(tmp_path, drawn())),
        "catalogue": look_at(write_text(tmp_path, "items.csv", "item_id,title\nx,Mug\ny,Tent\n")),
    }
    with pytest.raises(UserError, match=r"no event of .* is of an item of .*items\.csv"):
        with_core(Chosen(tables, k_core=4), given=False)


def test_a_core_of_nothing_is_refused(tmp_path: Path) -> None:
    chosen = Chosen({"events": look_at(write_events(tmp_path, drawn()))}, k_core=100)
    with pytest.raises(UserError, match="k_core: 100 leaves no event"):
        with_core(chosen, given=True)


def test_a_core_that_nobody_gave_is_lowered_until_events_are_left(tmp_path: Path) -> None:
    events = [(f"u{n}", f"i{n // 2}", START + n, None) for n in range(40)]
    chosen = Chosen({"events": look_at(write_events(tmp_path, events))}, k_core=5)
    found = with_core(chosen, given=False)
    assert (found.k_core, found.left) == (0, 40), "a user has one event"
    twice = [*events, *((user, item, time + 50, None) for user, item, time, _ in events)]
    chosen = Chosen({"events": look_at(write_events(tmp_path, twice))}, k_core=5)
    found = with_core(chosen, given=False)
    assert (found.k_core, found.left) == (2, 80)


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Chosen({"events": look_at(write_events(tmp_path, drawn()))}, k_core=4)
    monkeypatch.setattr(core, "LARGEST", 100)
    assert with_core(chosen, given=False) == chosen
    assert with_core(Chosen(chosen.tables), given=False).left is None, "nothing is left out"
