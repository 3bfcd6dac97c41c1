"""What earlier stages left is what the configuration leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("ibis", reason="pip install 'sidtune[prepare]'")
pytest.importorskip("sklearn", reason="pip install 'sidtune[sids]'")

from tests.tiny_data import tiny_tree

from sidtune.base.errors import UserError
from sidtune.commands.demo_shop import write_demo_events
from sidtune.config.events import PrepareConfig
from sidtune.events.prepare import Prepared, find_prepared, prepare
from sidtune.model import new_base
from sidtune.pipeline import defaults
from sidtune.pipeline import recipe as recipes
from sidtune.pipeline.defaults import Request, load_run, load_sids, recipe_of, with_index, with_rows
from sidtune.pipeline.recipe import LAYERS, Recipe
from sidtune.runs.bundle import CATALOGUE
from sidtune.runs.files import CONFIG
from sidtune.sids.fit import make
from sidtune.tasks import DEFAULT_TASKS

USERS = 20
COLUMNS = {"user": "customer", "item": "sku", "time": "ts"}


def write_config(folder: Path, **sections: Any) -> Path:
    """A shop's tables and a configuration that names nothing else."""
    tables = write_demo_events(folder / "data", users=USERS)
    tree = {
        "output_dir": str(folder / "run"),
        "events": {"files": str(tables.events), **COLUMNS},
        "catalogue": {"file": str(tables.items), "id": "sku", "title": "name"},
        **sections,
    }
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def do_prepare(path: Path, *overrides: str) -> Prepared:
    tree = Request.read(path, overrides).tree
    return prepare(
        PrepareConfig.model_validate({k: tree[k] for k in ("output_dir", "events", "catalogue")})
    )


def test_each_stage_finds_what_the_ones_before_left(tmp_path: Path) -> None:
    path = write_config(tmp_path, model={"base": "bases/any"})
    with pytest.raises(UserError, match=r"not prepared.*\n.*sidtune prepare .*shop.yaml"):
        load_run(path)
    done = do_prepare(path)
    with pytest.raises(UserError, match=r"there are no SIDs.*\n.*sidtune sids .*shop.yaml"):
        load_run(path)
    made = make(load_sids(path))
    data = load_run(path).data
    assert data.interactions == done.folder / "interactions.parquet"
    assert data.items == done.folder / "catalogue.parquet"
    assert data.index == made.folder / "index.json"


def test_a_change_asks_for_the_stages_that_it_touches_alone(tmp_path: Path) -> None:
    path = write_config(tmp_path, model={"base": "bases/any"})
    do_prepare(path)
    first = make(load_sids(path))
    # Other SIDs of the same rows.
    with pytest.raises(UserError, match=r"no SIDs.*\n.*sidtune sids \S+ sids.seed=3`"):
        load_run(path, ["sids.seed=3"])
    # Other rows; the items are the same, so the SIDs are.
    latest = ["events.latest=5", "catalogue.keep_untouched=true"]
    with pytest.raises(UserError, match="not prepared"):
        load_run(path, latest)
    assert load_run(path).data.index == first.folder / "index.json"


def test_a_split_by_time_gives_a_file_for_each_split(tmp_path: Path) -> None:
    path = write_config(tmp_path, model={"base": "bases/any"})
    split = ["events.split=global_time"]
    done = do_prepare(path, *split)
    make(load_sids(path, split))
    data = load_run(path, split).data
    assert [data.train, data.valid, data.test] == [
        done.folder / f"{name}.parquet" for name in ("train", "valid", "test")
    ]


def test_what_the_file_says_counts(tmp_path: Path) -> None:
    """Rows, items and index of one's own need no stage."""
    tree = tiny_tree(tmp_path)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    data = load_run(tmp_path / "c.yaml").data
    assert str(data.index) == tree["data"]["index"]
    assert str(data.train) == tree["data"]["train"]


def test_all_faults_are_told_before_a_stage_is_asked_for(tmp_path: Path) -> None:
    path = write_config(tmp_path, training={"epochs": 0, "epoch": 2}, sids={"seeed": 1})
    with pytest.raises(UserError) as told:
        load_run(path, ["events.k_core=0"])
    for name in ("training.epochs", "training.epoch: unknown", "sids.seeed", "events.k_core"):
        assert name in str(told.value)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"output_dir": "o", "model": {"base": "b"}}, "rows are missing"),
        ({"output_dir": "o", "data": 3}, "data: "),
        ({"output_dir": "o", "data": {"train": "t", "valid": "v"}, "model": 3}, "model: "),
        (
            {"output_dir": "o", "data": {"train": "t", "valid": "v"}, "model": {"base": "b"}},
            "neither data.items nor sids.catalogue",
        ),
    ],
)
def test_a_file_that_says_too_little(tmp_path: Path, tree: dict[str, Any], words: str) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=words):
        load_run(tmp_path / "c.yaml")


def test_events_without_a_catalogue_get_sids_by_behaviour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(tmp_path, sids={"vectors": "co_occurrence"}, model={"base": "bases/any"})
    tree = yaml.safe_load(path.read_text())
    del tree["catalogue"]
    path.write_text(yaml.safe_dump(tree))
    done = prepare(PrepareConfig.model_validate({k: tree[k] for k in ("output_dir", "events")}))
    made = make(load_sids(path))
    looked: list[PrepareConfig] = []

    def counted(config: PrepareConfig) -> Prepared | None:
        looked.append(config)
        return find_prepared(config)

    monkeypatch.setattr(defaults, "find_prepared", counted)
    data = load_run(path).data
    assert len(looked) == 1, "it reads all files of events"
    assert data.items is None
    assert data.index == made.folder / "index.json"
    assert data.interactions == done.rows["interactions"]


def test_a_table_of_a_database_is_what_prepare_last_made_of_it(tmp_path: Path) -> None:
    import duckdb

    path = write_config(tmp_path, model={"base": "bases/any"})
    events = tmp_path / "data" / "events.csv"
    shop = tmp_path / "shop.duckdb"
    with duckdb.connect(str(shop)) as connection:
        connection.execute(f"create table log as select * from '{events}'")
        connection.execute("create table other as select * from log")
    tree = yaml.safe_load(path.read_text())
    del tree["events"]["files"]
    tree["events"] |= {"database": str(shop), "table": "log"}
    path.write_text(yaml.safe_dump(tree))
    first = do_prepare(path)
    make(load_sids(path))
    assert load_run(path).data.interactions == first.rows["interactions"]
    with pytest.raises(UserError, match="not prepared"):
        load_run(path, ["events.table=other"])
    with duckdb.connect(str(shop)) as connection:
        connection.execute("insert into log select customer, sku, ts + 1000 from log")
    assert load_run(path).data.interactions == first.rows["interactions"]
    second = do_prepare(path)
    assert second.folder != first.folder
    assert load_run(path).data.interactions == second.rows["interactions"]
    with duckdb.connect(str(shop)) as connection:
        connection.execute(f"create or replace table log as select * from '{events}'")
    assert do_prepare(path).again
    assert load_run(path).data.interactions == first.rows["interactions"]


def test_many_items_without_rows_do_not_outweigh_the_histories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(tmp_path)
    do_prepare(path)
    make(load_sids(path))
    request = with_index(with_rows(Request.read(path)))
    for new, weight in ((0, None), (USERS // 4, None), (USERS, 0.25), (10 * USERS, 0.025)):
        monkeypatch.setattr(recipes, "unseen", lambda *_, new=new: np.arange(new))
        monkeypatch.setattr(recipes, "any_alike", lambda *_, new=new: new > 0)
        tasks = recipe_of(request).settings["tasks"]
        assert ("text_neighbours" in tasks) == bool(new)
        if new:
            options = tasks["text_neighbours"]
            assert options == (None if weight is None else {"weight": weight})


def test_the_model_follows_from_the_data_where_none_is_given(tmp_path: Path) -> None:
    path = write_config(tmp_path, training={"epochs": 7}, model={"residual_dropout": 0.3})
    do_prepare(path)
    make(load_sids(path))
    recipe = recipe_of(with_index(with_rows(Request.read(path))))
    assert load_run(path, model=False).data.index
    assert not recipe.base.exists(), "commands without a model need none"
    config = load_run(path)
    assert config.model.base == str(recipe.base)
    assert config.model.from_scratch
    assert config.model.residual_dropout == 0.3, "what the file says counts"
    assert config.training.epochs == 7
    assert config.training.min_lr_ratio == 0
    assert list(config.tasks) == ["sid_sequence", "sid_sequence_reversed", "text_neighbours"]
    assert list(load_run(path, ["tasks={sid_next: }"]).tasks) == ["sid_next"]
    assert (recipe.base / "config.json").is_file()
    assert LAYERS == 4
    made = (recipe.base / "config.json").stat().st_mtime_ns
    load_run(path)
    assert (recipe.base / "config.json").stat().st_mtime_ns == made, "once"


def test_a_base_that_was_trained_brings_its_tasks(tmp_path: Path) -> None:
    run = tmp_path / "trained"
    path = write_config(tmp_path, model={"base": str(run)})
    do_prepare(path)
    make(load_sids(path))
    assert set(load_run(path).tasks) == set(DEFAULT_TASKS), "a base of another origin"
    run.mkdir()
    (run / CONFIG).write_text(yaml.safe_dump({"tasks": {"sid_sequence": {"weight": 2.0}}}))
    assert set(load_run(path).tasks) == set(DEFAULT_TASKS), "a file of another tool"
    (run / CATALOGUE).touch()
    assert load_run(path).tasks == {"sid_sequence": {"weight": 2.0}}
    assert list(load_run(path, ["tasks={sid_next: }"]).tasks) == ["sid_next"]


def test_warmup_leaves_most_of_a_short_run(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    do_prepare(path)
    make(load_sids(path))

    def warmup(*overrides: str) -> float:
        request = with_index(with_rows(Request.read(path, overrides)))
        return recipe_of(request).sections(request.tree)["training"]["warmup"]

    # 20 users make 2 steps of 32 examples an epoch.
    assert warmup() == warmup("training.epochs=1") == 0.33
    assert warmup("training.epochs=200") == 100
    assert warmup("training.batch_size=2") == 100
    assert warmup("training.max_steps=310") == 100
    assert warmup("training.max_steps=300") == 0.33
    assert warmup("training.warmup=7") == 7


def test_another_process_may_make_the_base_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_base(first: bool) -> None:
        def create(folder: Path, *_: object) -> None:
            if first:
                folder.mkdir()
            raise UserError(f"{folder} cannot be written", "Free some space.")

        monkeypatch.setattr(new_base, "create_base", create)
        Recipe(tmp_path / f"bases-{first}" / "32x4", 32, {}).make_base()

    make_base(first=True)
    with pytest.raises(UserError, match="cannot be written"):
        make_base(first=False)
