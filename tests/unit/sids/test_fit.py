"""A catalogue becomes an index: the files, what is repeated and what is not, and every unusable
input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsRun
from sidtune.data.catalogue import read_catalogue
from sidtune.sids import fit, index
from sidtune.sids.fit import Made, default_levels, index_file, make
from sidtune.sids.index import is_complete, read_index

KINDS = ("mug", "tent", "stove", "shelf")
COLOURS = ("blue", "red", "green", "oak", "tin", "wool", "glass", "steel", "plain", "large")


def shop(folder: Path, items: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    records = {
        str(at): {
            "title": f"{COLOURS[at // 4 % 10]} {KINDS[at % 4]} no {at}",
            "brand": f"maker of {KINDS[at % 4]}s",
        }
        for at in range(items)
    }
    (folder / "shop.item.json").write_text(json.dumps(records))
    return folder / "shop.item.json"


def run(folder: Path, items: Path | None = None, **sids: Any) -> SidsRun:
    file = items or shop(folder)
    return SidsRun.model_validate(
        {"output_dir": folder / "run", "data": {"items": file}, "sids": sids}
    )


def files(made: Made) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in made.folder.iterdir()}


@pytest.mark.parametrize(
    ("sids", "said"),
    [
        ({}, "from title, brand: about half a minute for 100,000 …"),
        ({"quantizer": "rq_vae"}, "from title, brand: some minutes …"),
        ({"quantizer": "rq_kmeans_plus"}, "from title, brand: some minutes …"),
        ({"vectors": "encoder", "encoder": "bert"}, "from title, brand …"),
    ],
)
def test_no_time_is_told_that_it_does_not_take(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sids: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(fit, "fit", lambda source: source)
    monkeypatch.setattr(fit, "write_index", lambda *_: None)
    make(run(tmp_path, **sids))
    assert " ".join(capsys.readouterr().err.split()) == f"Making SIDs of 40 items {said}"


def test_the_default_gives_every_item_its_own_sid(tmp_path: Path) -> None:
    asked = run(tmp_path)
    made = make(asked)
    catalogue = read_catalogue(asked.data.items, made.folder / "index.json")
    assert len(catalogue.items_of) == 40
    assert {len(sid) for sid in catalogue.sids} == {3}
    assert all(sid[0].startswith("<a_") and sid[2].startswith("<c_") for sid in catalogue.sids)
    assert index_file(asked) == made.folder / "index.json"
    # Items of one maker stand together: the first tokens of mugs are not those of tents.
    kinds = [{sid[0] for sid in catalogue.sids[kind::4]} for kind in range(4)]
    assert sum(map(len, kinds)) == len(set.union(*kinds))


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = make(run(tmp_path / "a")), make(run(tmp_path / "b"))
    assert one.folder.name == other.folder.name
    assert files(one) == files(other)


def test_a_repeated_run_does_nothing_and_a_change_makes_another_index(tmp_path: Path) -> None:
    asked = run(tmp_path)
    made = make(asked)
    before = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    assert make(asked) == Made(made.folder, True)
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before
    seeds = make(run(tmp_path, seed=1))
    shop(tmp_path, 41)
    grown = make(asked)
    assert len({made.folder, seeds.folder, grown.folder}) == 3


def test_a_moved_catalogue_of_the_same_contents_changes_nothing(tmp_path: Path) -> None:
    made = make(run(tmp_path))
    moved = (tmp_path / "shop.item.json").rename(tmp_path / "moved.item.json")
    assert make(run(tmp_path, moved)) == Made(made.folder, True)


def test_settings_without_effect_on_the_vectors_do_not_read_rows(tmp_path: Path) -> None:
    asked = run(tmp_path).model_copy(
        update={"data": run(tmp_path).data.model_copy(update={"train": tmp_path / "none"})}
    )
    assert make(asked).folder == make(run(tmp_path)).folder


@pytest.mark.parametrize(
    "name", ["index.json", "codebooks.safetensors", "report.json", "vectors.npy", "fitted.json"]
)
def test_a_damaged_index_is_made_again(tmp_path: Path, name: str) -> None:
    made = make(run(tmp_path))
    before = files(made)
    (made.folder / name).write_bytes(before[name][:-3])
    with pytest.raises(UserError, match=r"damaged|not valid JSON"):
        read_index(made.folder)
    assert make(run(tmp_path)) == made
    assert files(made) == before


def test_nothing_is_left_of_a_run_that_fails_while_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fails)
        with pytest.raises(UserError, match="No space left on device"):
            make(run(tmp_path))
    assert list((tmp_path / "run" / "sids").iterdir()) == []
    assert is_complete(make(run(tmp_path)).folder)


def test_another_process_that_was_faster_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ordinary = run(tmp_path), index._publish

    def late(aside: Path, folder: Path) -> None:
        monkeypatch.setattr(index, "_publish", ordinary)
        make(asked)
        ordinary(aside, folder)

    monkeypatch.setattr(index, "_publish", late)
    made = make(asked)
    assert is_complete(made.folder)
    assert [path.name for path in made.folder.parent.iterdir()] == [made.folder.name]


def test_what_was_fitted_is_read_back(tmp_path: Path) -> None:
    made = make(run(tmp_path))
    fitted = read_index(made.folder)
    assert len(fitted.ids) == len(fitted.sids) == len(fitted.titles) == len(fitted.codes) == 40
    assert fitted.options == run(tmp_path).sids
    assert fitted.sids[3] == tuple(
        f"<{'abc'[at]}_{code}>" for at, code in enumerate(fitted.codes[3])
    )


# --- other inputs ---


def test_a_parquet_catalogue_and_given_vectors(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 6))
    pyarrow.parquet.write_table(
        pa.table({"item_id": range(30), "title": ["x"] * 30}), tmp_path / "c.parquet"
    )
    np.save(tmp_path / "v.npy", vectors)
    asked = SidsRun.model_validate(
        {
            "output_dir": tmp_path / "run",
            "sids": {
                "catalogue": tmp_path / "c.parquet",
                "vectors": "file",
                "file": tmp_path / "v.npy",
                "levels": [4, 4, 8],
                "quantizer": "balanced",
            },
        }
    )
    sids = json.loads((make(asked).folder / "index.json").read_text())
    assert len({tuple(sid) for sid in sids.values()}) == 30


def test_behaviour_of_whole_histories_leaves_out_what_is_held_out(tmp_path: Path) -> None:
    items = shop(tmp_path, 6)
    # Of each user the last two are held out, so 0 and 1 pair with nothing else.
    histories = {"u": ["0", "1", "2", "3"], "v": ["1", "0", "4", "5"]}
    (tmp_path / "shop.inter.json").write_text(json.dumps(histories))
    tree = {
        "output_dir": tmp_path / "run",
        "data": {"items": items, "interactions": tmp_path / "shop.inter.json"},
        "sids": {"vectors": "co_occurrence", "levels": [2, 2, 2]},
    }
    vectors = read_index(make(SidsRun.model_validate(tree)).folder).vectors
    assert (vectors[2:] == 0).all()
    assert (vectors[:2] != 0).any(1).all()


def test_one_item_alone(tmp_path: Path) -> None:
    sids = json.loads((make(run(tmp_path, shop(tmp_path, 1))).folder / "index.json").read_text())
    assert [len(sid) for sid in sids.values()] == [3]


def test_fewer_items_than_codes_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(run(tmp_path, shop(tmp_path, 12), levels=[64, 64, 64]))
    assert "12 items are fewer than the 64 codes of the first level" in capsys.readouterr().err
    sids = json.loads((made.folder / "index.json").read_text())
    assert len({tuple(sid) for sid in sids.values()}) == 12


@pytest.mark.parametrize("rule", ["reassign", "extra_token", "keep"])
def test_items_with_equal_texts(tmp_path: Path, rule: str) -> None:
    records = {str(at): {"title": "blue mug" if at < 20 else f"red tent {at}"} for at in range(30)}
    (tmp_path / "i.item.json").write_text(json.dumps(records))
    made = make(run(tmp_path, tmp_path / "i.item.json", levels=[4, 4, 8], collisions=rule))
    sids = [tuple(sid) for sid in json.loads((made.folder / "index.json").read_text()).values()]
    assert (len(set(sids)) == 30) == (rule != "keep")
    report = json.loads((made.folder / "report.json").read_text())
    assert report["collisions"]["sids"] == len(set(sids))
    if rule == "reassign":
        # Twenty equal items and eight last codes a prefix: at least twelve go elsewhere, and are
        # counted.
        assert report["fit"]["surplus"] >= 12


# --- what is refused, with nothing written ---


def refused(asked: SidsRun) -> str:
    with pytest.raises(UserError) as error:
        make(asked)
    assert not list(asked.output_dir.rglob("*.json"))
    return str(error.value)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ({str(at): {"title": "same"} for at in range(5)}, "all 5 items have the same vector"),
        ({str(at): {"title": ""} for at in range(5)}, "no item has any text"),
        ({"1": "mug"}, "item 1: expected an object"),
        ({"1\n": {"title": "mug"}}, "contains a NUL or a line break"),
    ],
)
def test_unusable_catalogues(tmp_path: Path, records: dict[str, Any], said: str) -> None:
    (tmp_path / "i.item.json").write_text(json.dumps(records))
    assert said in refused(run(tmp_path, tmp_path / "i.item.json"))


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "i.item.json").write_text('{"1": {"title": "a"}, "1": {"title": "b"}}')
    assert "the key '1' occurs twice" in refused(run(tmp_path, tmp_path / "i.item.json"))


def test_missing_files_and_sections_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(run(tmp_path, tmp_path / "none.item.json"))
    assert "neither data.items nor sids.catalogue" in refused(
        SidsRun.model_validate({"output_dir": tmp_path / "run"})
    )
    assert "co_occurrence needs training rows" in refused(run(tmp_path, vectors="co_occurrence"))


def test_too_few_sids_are_refused(tmp_path: Path) -> None:
    assert "2 × 4 = 8 SIDs, and 40 items need one each" in refused(run(tmp_path, levels=[2, 4]))


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.feature_extraction.text", None)
    said = refused(run(tmp_path))
    assert "scikit-learn" in said
    assert said.endswith("pip install 'sidtune[sids]'")


@pytest.mark.parametrize(
    ("items", "size"),
    [
        (1, 4),
        (16, 4),
        (40, 8),
        (400, 64),
        (1_000, 128),
        (1_024, 256),
        (3_686, 256),
        (1_000_000, 256),
        (10**7, 512),
    ],
)
def test_default_levels(items: int, size: int) -> None:
    assert default_levels(items) == [size] * 3
    assert fit.ITEMS_PER_CODE * items <= size**3
