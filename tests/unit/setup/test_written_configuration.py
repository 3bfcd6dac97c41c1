"""The configuration that is written: it is accepted, it suits the machine, and it prepares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from tests.made_events import START, prepared, write_events, write_text
from tests.tiny_data import write_shop

from sidtune.base.storage import GIB
from sidtune.pipeline.defaults import Request
from sidtune.setup.choose import Chosen, choose
from sidtune.setup.estimate import base_parameters, estimate, fits
from sidtune.setup.look import Table, look
from sidtune.setup.machine import Machine
from sidtune.setup.write import text_of

LAPTOP = Machine(2, 8 * GIB)
SERVER = Machine(64, 512 * GIB, (80 * GIB,) * 8, "Some GPU")


def written(chosen: Chosen, machine: Machine = LAPTOP) -> str:
    takes = estimate(chosen, machine, 3)
    return text_of(chosen, "shop", "sidtune init shop", machine, takes, Path("shop.yaml"))


def accepted(folder: Path, chosen: Chosen, machine: Machine = LAPTOP) -> dict[str, Any]:
    """The tree of the written file, which the reader takes as it is."""
    file = folder / "written.yaml"
    file.write_text(written(chosen, machine))
    return Request.read(file).tree


def events_of(folder: Path, users: int = 30) -> None:
    write_events(folder, [(f"u{n % users}", f"i{n % 7}", START + n, 1.0) for n in range(300)])


def test_rows_and_sids_of_minionerec(tmp_path: Path) -> None:
    write_shop(tmp_path)
    tree = accepted(tmp_path, choose(look(tmp_path)))
    assert tree["data"].keys() == {"train", "valid", "test", "items", "index", "unique_sids"}
    assert tree["output_dir"] == "runs/shop"
    assert "events" not in tree


def test_rows_without_texts_and_without_sids(tmp_path: Path) -> None:
    write_shop(tmp_path)
    for name in ("shop.item.json", "shop.index.json"):
        (tmp_path / name).unlink()
    tree = accepted(tmp_path, choose(look(tmp_path)))
    assert tree["data"].keys() == {"train", "valid", "test"}
    assert tree["sids"] == {"vectors": "co_occurrence"}


def test_whole_histories_without_texts_and_without_sids(tmp_path: Path) -> None:
    write_text(tmp_path, "a.inter.json", json.dumps({"u": ["1", "2", "3", "4"]}))
    tree = accepted(tmp_path, choose(look(tmp_path)))
    assert tree["sids"] == {"vectors": "co_occurrence"}
    assert tree["data"].keys() == {"interactions"}
    write_text(tmp_path, "a.index.json", json.dumps({str(n): [f"<a_{n}>"] for n in range(5)}))
    assert accepted(tmp_path, choose(look(tmp_path)))["data"].keys() == {"interactions", "index"}


def test_whole_histories_with_sids_and_attributes_use_both(tmp_path: Path) -> None:
    write_text(tmp_path, "a.inter.json", json.dumps({"u": ["1", "2", "3", "4"]}))
    write_text(tmp_path, "a.index.json", json.dumps({str(n): [f"<a_{n}>"] for n in range(1, 6)}))
    attributes = json.dumps({str(n): [n % 2, 7] for n in range(1, 6)})
    write_text(tmp_path, "a.attributes.json", attributes)
    chosen = choose(look(tmp_path))
    assert chosen.targets == 1
    tree = accepted(tmp_path, chosen)
    assert tree["data"].keys() == {"index"}
    done = prepared(tmp_path, tree["catalogue"], **tree["events"])
    catalogue = pyarrow.parquet.read_table(done.folder / "catalogue.parquet")
    titles = dict(zip(*(catalogue[name].to_pylist() for name in ("item_id", "title")), strict=True))
    assert titles == {"1": "a1 a7", "2": "a0 a7", "3": "a1 a7", "4": "a0 a7", "5": "a1 a7"}, (
        "an item that nobody had keeps its place beside its SID"
    )


def test_what_is_written_of_events_can_be_prepared(tmp_path: Path) -> None:
    events_of(tmp_path)
    write_text(tmp_path, "items.csv", "sku,name\n" + "".join(f"i{n},Item {n}\n" for n in range(7)))
    tree = accepted(tmp_path, choose(look(tmp_path)))
    assert "k_core" not in tree["events"], "so few events are not filtered"
    done = prepared(tmp_path, tree["catalogue"], **tree["events"])
    assert done.summary["result"] == {**done.summary["result"], "users": 30, "items": 7}


def test_every_key_has_its_comment_and_lines_are_short(tmp_path: Path) -> None:
    events_of(tmp_path)
    text = written(choose(look(tmp_path)))
    folder = str(tmp_path)
    assert all(len(line) <= 100 or folder in line for line in text.splitlines())
    assert "    sidtune run shop.yaml" in text
    assert "users and items with fewer events than this are left out" in text
    assert "hidden size 128, 24 epochs" in " ".join(text.replace("#", "").split())
    tree = yaml.safe_load(text)
    assert "model" not in tree, "it is shown as a comment"
    assert "# model: {base: " in text


def test_a_pretrained_base_that_fits_is_trained_as_a_whole(tmp_path: Path) -> None:
    events_of(tmp_path)
    chosen = choose(look(tmp_path))
    small = Chosen(chosen.tables, base="Qwen/Qwen3-0.6B")
    large = Chosen(chosen.tables, base="some/model-70B")
    assert accepted(tmp_path, small, SERVER)["model"]["tuning"] == "full"
    assert accepted(tmp_path, small, LAPTOP)["model"]["tuning"] == "frozen"
    tree = accepted(tmp_path, large, SERVER)
    assert tree["model"]["tuning"] == "frozen"
    assert tree["training"]["learning_rate"] == 1e-2
    assert "about 1043 GiB" in written(large, SERVER)


@pytest.mark.parametrize("name", ["my shop", "a: b", "$HOME", "#1", "Läden"])
def test_paths_are_written_so_that_they_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    events_of(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    tree = accepted(tmp_path, choose(look(Path(name))))
    assert Path(tree["events"]["files"]).is_file()
    assert Path(tree["events"]["files"]).is_absolute() == ("$" in name)


def test_parameters_of_a_base(tmp_path: Path) -> None:
    assert base_parameters("Qwen/Qwen2.5-0.5B-Instruct") == 500_000_000
    assert base_parameters("HuggingFaceTB/SmolLM2-135M") == 135_000_000
    assert base_parameters("some/model") == 0
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 4_000)
    assert base_parameters(str(tmp_path)) == 2_000
    assert fits(500_000_000, SERVER)
    assert not fits(70_000_000_000, SERVER)
    assert fits(70_000_000_000, Machine(1, 0)), "nothing is known"


def test_estimates_grow_with_the_data_and_shrink_with_cores() -> None:
    def seconds(rows: int, machine: Machine, base: str | None = None) -> float:
        table = Table(Path("nosuch"), "train", rows=rows)
        return estimate(Chosen({"train": table}, base=base), machine, 3).high

    assert seconds(10_000, LAPTOP) < seconds(20_000, LAPTOP) < seconds(2_000_000, LAPTOP)
    assert seconds(10_000, Machine(4, 0)) < seconds(10_000, Machine(1, 0))
    base = "some/model-7B"
    assert seconds(10_000, SERVER, base) < seconds(10_000, LAPTOP, base) / 100
    unnamed = Chosen({"train": Table(Path("nosuch"), "train", rows=9)}, base="some/model")
    assert "will tell" in estimate(unnamed, LAPTOP, 3).text
