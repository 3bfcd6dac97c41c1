"""New items: old ones keep their SIDs, new ones get the nearest that is free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.sids.test_fit import run, shop

from sidtune.base.errors import UserError
from sidtune.sids.assign import assign
from sidtune.sids.fit import make
from sidtune.sids.index import Fitted, read_index, write_index
from sidtune.sids.items import Items
from sidtune.sids.vectors.text import Text


def fitted(folder: Path, **sids: Any) -> tuple[Fitted, Path]:
    made = make(run(folder, **sids))
    return read_index(made.folder), made.folder


def catalogue(folder: Path, records: dict[str, Any]) -> Path:
    (folder / "new.item.json").write_text(json.dumps(records))
    return folder / "new.item.json"


@pytest.mark.parametrize("rule", ["reassign", "extra_token", "keep"])
def test_old_items_keep_their_sids_and_new_ones_stand_beside_their_like(
    tmp_path: Path, rule: str
) -> None:
    before, folder = fitted(tmp_path, collisions=rule)
    new = catalogue(
        tmp_path,
        {"0": {"title": "changed"}, "new": {"title": "blue mug no 0", "brand": "maker of mugs"}},
    )
    placed = assign(before, folder, new)
    after = placed.fitted
    assert placed.new == 1
    assert after.ids == [*before.ids, "new"]
    assert after.sids[:-1] == before.sids
    # Its text is that of item 0, whose prefix it gets, and whose SID only where items may share.
    assert after.sids[-1][:2] == before.sids[0][:2]
    assert (after.sids[-1] in before.sids) == (rule == "keep")


def test_vectors_are_made_of_new_items_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that reads a whole catalogue for a few new items takes hours."""
    before, folder = fitted(tmp_path)
    seen, ordinary = list[list[str]](), Text.place

    def place(self: Text, items: Items, *rest: Any) -> Any:
        seen.append(items.ids)
        return ordinary(self, items, *rest)

    monkeypatch.setattr(Text, "place", place)
    assign(before, folder, catalogue(tmp_path, {"0": {"title": "mug"}, "new": {"title": "mug"}}))
    assert seen == [["new"]]


def test_an_index_that_grew_can_grow_again(tmp_path: Path) -> None:
    before, folder = fitted(tmp_path)
    first = assign(before, folder, catalogue(tmp_path, {"n1": {"title": "red mug"}}))
    write_index(first.fitted, first.folder)
    again = assign(
        read_index(first.folder), first.folder, catalogue(tmp_path, {"n2": {"title": "red mug"}})
    )
    assert len(set(again.fitted.sids)) == 42
    assert again.fitted.sids[:41] == first.fitted.sids
    assert len({folder, first.folder, again.folder}) == 3


@pytest.mark.parametrize("name", [".", "../{name}"])
def test_the_new_index_lies_beside_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before, folder = fitted(tmp_path)
    new = catalogue(tmp_path, {"n": {"title": "red mug"}})
    monkeypatch.chdir(folder)
    placed = assign(before, Path(name.format(name=folder.name)), new)
    assert placed.folder.parent == folder.resolve().parent


def test_items_without_a_known_term_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, folder = fitted(tmp_path)
    assign(before, folder, catalogue(tmp_path, {"n": {"title": "zzz"}}))
    assert "1 of 1 new items have none of the terms that were fitted" in capsys.readouterr().err


def test_without_new_items_the_index_stays(tmp_path: Path) -> None:
    before, folder = fitted(tmp_path)
    floats = {f"{item}.0": {"title": "as a column of floats writes it"} for item in before.ids[:3]}
    for items in (shop(tmp_path), catalogue(tmp_path, floats)):
        assert assign(before, folder, items) == (before, folder, 0, 0)


def test_given_vectors_are_given_again(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    before, folder = fitted(tmp_path, vectors="file", file=str(tmp_path / "v.npy"))
    new = catalogue(tmp_path, {"n": {"title": "x"}, "3": {"title": "y"}})
    with pytest.raises(UserError, match="needs --vectors"):
        assign(before, folder, new)
    np.save(tmp_path / "w.npy", vectors[[7, 3]])
    placed = assign(before, folder, new, tmp_path / "w.npy")
    assert placed.fitted.sids[-1][:2] == before.sids[7][:2]
    with pytest.raises(UserError, match="takes no --vectors"):
        assign(*fitted(tmp_path / "texts"), new, tmp_path / "w.npy")


def test_a_folder_without_sids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no fitted SIDs"):
        read_index(tmp_path)
