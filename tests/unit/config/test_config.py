"""The configuration: overrides, suggestions, and refusals that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sidtune.base.errors import UserError
from sidtune.runs.output import write_config
from sidtune.runs.schedule import stage_runs
from sidtune.tasks.config_file import dump_config, load_config, parse_config

TREE: dict[str, Any] = {
    "output_dir": "out",
    "model": {"base": "b"},
    "data": {"items": "i", "index": "x", "train": "t", "valid": "v"},
}

WHOLE = {"index": "x", "interactions": "h"}


FULL: dict[str, Any] = {"tuning": "full"}


def changed(**sections: Any) -> dict[str, Any]:
    return {**TREE, **sections}


def test_defaults() -> None:
    config = parse_config(TREE, "test")
    assert list(config.task_options()) == [
        "sid_next",
        "item_feature",
        "fusion",
        "title_next",
        "title_to_sid",
    ]
    assert (config.training.layout, config.eval.every, config.eval.patience) == ("tree", 0.05, 3)


def test_without_items_the_default_tasks_are_those_that_need_no_text() -> None:
    assert list(parse_config(changed(data=WHOLE), "test").task_options()) == ["sid_next"]
    rows = {"index": "x", "train": "t", "valid": "v"}
    assert list(parse_config(changed(data=rows), "test").task_options()) == ["sid_next"]
    given = changed(
        data={**WHOLE, "preferences": "p"}, tasks={"preference": None, "preference_to_sid": None}
    )
    assert list(parse_config(given, "test").task_options()) == ["preference", "preference_to_sid"]


def test_where_rows_come_from() -> None:
    rows, whole = (parse_config(changed(data=data), "test").data for data in (TREE["data"], WHOLE))
    assert [rows.rows_file(split) for split in ("train", "valid", "test")] == [
        Path("t"),
        Path("v"),
        None,
    ]
    assert {whole.rows_file(split) for split in ("train", "valid", "test")} == {Path("h")}


def test_overrides_replace_keys(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(TREE))
    overrides = [
        "training.learning_rate=1e-4",
        "tasks.fusion.target=both",
        "seed=7",
        "model.base=other",
        "data.sample=5",
    ]
    config = load_config(file, overrides)
    assert config.training.learning_rate == 1e-4, "PyYAML reads 1e-4 as text"
    assert config.seed == 7
    assert config.model.base == "other"
    assert list(config.task_options()) == ["fusion"]


@pytest.mark.parametrize("override", ["seed", "=3", "training..epochs=3", "seed.x=3"])
def test_malformed_overrides(tmp_path: Path, override: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(changed(seed=3)))
    with pytest.raises(UserError, match="override"):
        load_config(file, [override])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (changed(trainning={}), r"trainning: unknown key; did you mean training\?"),
        (
            changed(training={"learning_rat": 1}),
            r"training.learning_rat: unknown key; did you mean learning_rate\?",
        ),
        (
            changed(tasks={"fusion": {"targt": "title"}}),
            r"tasks.fusion.targt: unknown key; did you mean target\?",
        ),
        (changed(tasks={"fushion": None}), r"tasks.fushion: unknown task; did you mean fusion\?"),
        (changed(tasks={"poems": None}), r"tasks.poems: unknown task\. Known tasks: sid_next, "),
        (changed(rl={"tasks": {"poems": None}}), r"rl.tasks.poems: unknown task\. Known tasks: "),
        (
            changed(rl={"tasks": {"fusion": {"targt": "title"}}}),
            r"rl.tasks.fusion.targt: unknown key; did you mean target\?",
        ),
        (changed(rl={"tasks": {"preference": None}}), r"rl.tasks.preference needs data.prefer"),
        (
            changed(data=WHOLE, rl={"tasks": {"title_to_sid": None}}),
            r"data.items is missing, but titles or descriptions are needed by rl.tasks.title_to_s",
        ),
        (
            changed(data={**TREE["data"], "dedup": True}, rl={"tasks": {"sid_sequence": None}}),
            r"data.dedup removes rows, but rl.tasks.sid_sequence needs whole histories",
        ),
        (
            changed(tasks={"fusion": {"target": "name"}}),
            r"tasks.fusion.target: .*'title', 'description' or 'both', found 'name'",
        ),
        (changed(tasks={}), r"tasks: no task given"),
        (changed(rl={"tasks": {}}), r"rl\.tasks: no task given; without the key, the evaluation"),
        (changed(tasks={"preference": None}), r"tasks.preference needs data.preferences"),
        (changed(tasks={"instruction": None}), r"tasks.instruction needs data.instructions"),
        (changed(training={"epochs": "many"}), r"training.epochs: .* whole number, found 'many'"),
        (
            changed(training={"warmup": -1}),
            r"training.warmup: expected at least 0; or expected more than 0, found -1",
        ),
        (
            changed(training={"layout": "padded", "max_tokens": 9}),
            r"max_tokens has no effect with layout: padded",
        ),
        (
            changed(training={"micro_batch_size": 9}),
            r"micro_batch_size has no effect with layout: tree",
        ),
        (changed(training={"max_tokens": "much"}), r"training.max_tokens: .* auto, found 'much'"),
        (changed(loss={"label_smoothing": 1.0}), r"label_smoothing: .*less than 1, found 1.0"),
        (
            changed(model={"base": "b", "from_scratch": True, "tuning": "frozen"}),
            r"model: frozen tuning needs a pretrained base",
        ),
        (
            changed(model={"base": "b", "lora": {"rank": 4}}),
            r"model.lora has no effect without tuning: lora",
        ),
        (
            changed(model={"base": "b", "tuning": "frozen", "quantize": "nf4"}),
            r"model.quantize needs tuning: lora",
        ),
        (
            changed(model={"base": "b", "tuning": "lora", "quantize": "nf4", "lora": {"dora": 1}}),
            r"model.quantize: not with lora.dora",
        ),
        (
            changed(
                model={"base": "b", "tuning": "lora", "quantize": "nf4"},
                training={"distributed": "fsdp2"},
            ),
            r"model.quantize: not with training.distributed: fsdp2",
        ),
        (
            changed(training={"distributed": "fsdp2", "compile": True}),
            r"compile is not supported with distributed: fsdp2",
        ),
        (
            changed(model={"base": "b", "tuning": "lora", "lora": {"targets": []}}),
            r"model.lora.targets: expected a length of at least 1",
        ),
        (
            changed(
                model={"base": "b", "lora": {"save_adapter": True}},
                stages=[{"tuning": "full", "steps": 1}, {"tuning": "lora"}],
            ),
            r"save_adapter: an adapter describes a run whose last stage is lora",
        ),
        (changed(data={"items": "i"}), r"test: data.index: is missing\n[^\n]*$"),
        (
            changed(data={"index": "x", "train": "t"}),
            r"data: rows are missing: give train and valid .*or interactions",
        ),
        (
            changed(data={"index": "x", "interactions": "h", "valid": "v", "test": "t"}),
            r"data: interactions contains all splits: remove valid and test",
        ),
        (
            changed(data={**WHOLE, "description_tokens": 5}),
            r"data: description_tokens has no effect without items",
        ),
        (
            changed(data=WHOLE, tasks={"title_next": None, "sid_next": None, "item_feature": None}),
            r"data.items is missing, but .* needed by tasks.title_next, tasks.item_feature\n",
        ),
        (
            changed(model={"base": "b", "residual_dropout": 1}),
            r"model.residual_dropout: expected .*less than 1, found 1",
        ),
        (
            changed(training={"decay_embeddings": False}),
            r"decay_embeddings has no effect with weight_decay: 0",
        ),
        (changed(eval={"task": "sid_sequence"}), r"eval.task: sid_sequence is not in `tasks`"),
        (
            changed(tasks={"sid_sequence": None}, eval={"task": "sid_next"}),
            r"eval.task: sid_next is not in `tasks`",
        ),
        (
            changed(tasks={"sid_sequence": None}, data={**TREE["data"], "dedup": True}),
            r"data.dedup removes rows, but tasks.sid_sequence needs whole histories",
        ),
        (
            changed(
                tasks={"sid_next": None, "sid_sequence_reversed": None},
                data={**TREE["data"], "dedup": True},
            ),
            r"data.dedup removes rows, but tasks.sid_sequence_reversed needs whole histories",
        ),
        (
            changed(
                model={"base": "b", "tuning": "frozen"},
                training={"weight_decay": 0.1, "decay_embeddings": False},
            ),
            r"training.weight_decay has no effect: frozen tuning trains only embedding rows",
        ),
        (
            changed(stages=[{"tuning": "frozen"}, FULL]),
            r"stages: stage 1 of 2 needs steps or epochs",
        ),
        (
            changed(stages=[FULL | {"steps": 2, "epochs": 1}]),
            r"stages.1: steps and epochs both set the length",
        ),
        (
            changed(stages=[FULL, {"tuning": "all"}]),
            r"stages.2.tuning: .*'full', 'frozen' or 'lora', found 'all'",
        ),
        (
            changed(stages=[{"tunning": "full"}]),
            r"stages.1.tunning: unknown key; did you mean tuning\?",
        ),
        (
            changed(stages=[FULL], model={"base": "b", "tuning": "full"}),
            r"model.tuning has no effect, since the stages set it",
        ),
        (
            changed(stages=[FULL | {"steps": 2}], training={"epochs": 2}),
            r"training.epochs has no effect",
        ),
        (
            changed(stages=[FULL | {"learning_rate": 1}], training={"learning_rate": 1}),
            r"learning_rate has no effect",
        ),
        (
            changed(stages=[{"tuning": "frozen"}], model={"base": "b", "from_scratch": True}),
            r"stages: frozen tuning needs a pretrained base",
        ),
        (
            changed(training={"learning_rate": float("inf")}),
            r"training.learning_rate: .*finite number, found inf",
        ),
        (
            changed(training={"learning_rate": "1e400"}),
            r"training.learning_rate: .*finite number, found '1e400'",
        ),
        (
            changed(training={"max_grad_norm": float("nan")}),
            r"training.max_grad_norm: .*finite number, found nan",
        ),
        (
            changed(tasks={"fusion": {"weight": float("inf")}}),
            r"tasks.fusion.weight: .*finite number, found inf",
        ),
        (
            changed(tasks={"fusion": {"weight": 1e300}}),
            r"tasks.fusion.weight: expected at most 1000",
        ),
        (
            changed(tasks={"fusion": {"sample": 2**63}}),
            r"tasks.fusion.sample: expected at most 2147483647",
        ),
        (
            changed(training={"batch_size": 2**63}),
            r"training.batch_size: expected at most 2147483647",
        ),
        (changed(training={"epochs": 1e300}), r"training.epochs: .*found 1e\+300"),
        (
            changed(training={"warmup": 2**31}),
            r"training.warmup: expected at most 2147483647",
        ),
        (changed(model={"base": "x" * 5000}), r"model.base: path too long"),
        (
            changed(output_dir="a/" + "é" * 128),
            r"output_dir: path too long: at most 255 bytes per name",
        ),
        (changed(data={**WHOLE, "items": "ab/" * 1001}), r"data.items: path too long"),
        (
            changed(output_dir="$NOWHERE_SET/x"),
            r"output_dir: the environment variable NOWHERE_SET is not set",
        ),
    ],
)
def test_mistakes_are_named(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config(tree, "test")


def test_every_mistake_is_listed_at_once() -> None:
    with pytest.raises(UserError) as error:
        parse_config(changed(sed=1, training={"epochs": 0, "layout": "heap"}), "file.yaml")
    for word in ("file.yaml", "sed:", "training.epochs", "training.layout"):
        assert word in str(error.value)


def test_environment_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", "/data/shop")
    config = parse_config(changed(output_dir="$SHOP/run", model={"base": "${SHOP}/base"}), "test")
    assert config.output_dir == Path("/data/shop/run")
    assert config.model.base == "/data/shop/base"


def paths_in(tree: Any) -> dict[str, str]:
    """Every value of a dumped configuration, nested keys joined by dots, that is text with a slash
    in it.
    """
    if not isinstance(tree, dict):
        return {"": tree} if isinstance(tree, str) and "/" in tree else {}
    return {
        f"{key}.{rest}".rstrip("."): path
        for key, value in tree.items()
        for rest, path in paths_in(value).items()
    }


def test_a_saved_configuration_has_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key that holds a path, in the folder of a run and in that of its stages; `$` in a
    folder's name is kept.
    """
    home = tmp_path / "costs $HOME"
    for folder in (home / "models" / "base", tmp_path / "user"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(home)
    monkeypatch.setenv("SHOP", "shop")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    names = ("items", "index", "train", "valid", "test", "preferences", "instructions")
    data = {name: f"$SHOP/{name}.file" for name in names}
    tree = {
        "output_dir": "out/run",
        "model": {"base": "models/base"},
        "data": data,
        "template": {"file": "../wordings/mine.yaml"},
        "encoding": {"cache_dir": "~/cache"},
        "stages": [{"tuning": "frozen", "steps": 1}, {"tuning": "full"}],
    }
    run = parse_config(tree, "test")
    (home / "shop").mkdir()
    for name in names:
        (home / "shop" / f"{name}.file").touch()
    (tmp_path / "wordings").mkdir()
    (tmp_path / "wordings" / "mine.yaml").touch()
    for config in (run, stage_runs(run)[0]):
        write_config(config)
    monkeypatch.chdir(tmp_path)
    expected = {f"data.{name}": home / "shop" / f"{name}.file" for name in names} | {
        "output_dir": home / "out" / "run",
        "model.base": home / "models" / "base",
        "template.file": home / ".." / "wordings" / "mine.yaml",
        "encoding.cache_dir": tmp_path / "user" / "cache",
    }
    file = home / "out" / "run" / "config.yaml"
    assert paths_in(yaml.safe_load(file.read_text())) == {
        name: str(path) for name, path in expected.items()
    }
    again = load_config(file)
    assert (again.output_dir, again.data.train) == (expected["output_dir"], expected["data.train"])
    stage = yaml.safe_load((file.parent / "stage-1" / "config.yaml").read_text())
    assert paths_in(stage) == {name: str(path) for name, path in expected.items()} | {
        "output_dir": str(home / "out" / "run" / "stage-1")
    }


def test_the_name_of_a_base_on_the_hub_is_saved_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(parse_config(changed(model={"base": "Qwen/Qwen3-0.6B"}, data=WHOLE), "test"))
    tree = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert tree["model"]["base"] == "Qwen/Qwen3-0.6B"
    assert tree["data"]["interactions"] == str(tmp_path / "h")


@pytest.mark.parametrize(
    "data", [WHOLE, {**WHOLE, "items": "i", "history": 7, "description_tokens": 9}, TREE["data"]]
)
def test_the_dump_of_every_kind_of_data_reads_back(tmp_path: Path, data: dict[str, Any]) -> None:
    config, file = parse_config(changed(data=data), "test"), tmp_path / "c.yaml"
    file.write_text(dump_config(config))
    assert load_config(file).data == config.data
    written = yaml.safe_load(file.read_text())["data"]
    assert ("description_tokens" in written) == ("items" in data)


@pytest.mark.parametrize(
    ("data", "longest"),
    [
        (WHOLE, 20),
        ({**WHOLE, "history": 7}, 7),
        (TREE["data"], None),
        ({**TREE["data"], "history": 7}, 7),
    ],
)
def test_how_long_histories_are(data: dict[str, Any], longest: int | None) -> None:
    assert parse_config(changed(data=data), "test").data.longest_history == longest


@pytest.mark.parametrize(
    "layout", [{}, {"layout": "padded", "micro_batch_size": 2, "weight_decay": 0.1}]
)
@pytest.mark.parametrize("loss", [{}, {"over": "allowed"}, {"label_smoothing": 0.1}])
def test_the_dump_reads_back(tmp_path: Path, layout: dict[str, Any], loss: dict[str, Any]) -> None:
    config = parse_config(
        changed(
            training={"epochs": 9, **layout},
            loss=loss,
            eval={"patience": None},
            tasks={"fusion": {"target": "both"}},
        ),
        "test",
    )
    file = tmp_path / "c.yaml"
    file.write_text(dump_config(config))
    again = load_config(file)
    assert dump_config(again) == dump_config(config)
    assert again.task_options() == config.task_options()
    assert again.training == config.training
    assert again.eval == config.eval
    assert again.loss == config.loss


def test_the_dump_leaves_out_what_has_no_effect() -> None:
    tree = yaml.safe_load(
        dump_config(parse_config(changed(model={"base": "b", "from_scratch": True}), "test"))
    )
    assert "new_rows" not in tree["model"]
    assert "micro_batch_size" not in tree["training"]
    assert "decay_embeddings" not in tree["training"]


def test_stages_read_back_with_what_they_say(tmp_path: Path) -> None:
    stages = [
        {"tuning": "frozen", "epochs": 1, "learning_rate": 0.01},
        {"tuning": "full", "steps": 9},
    ]
    config = parse_config(changed(stages=stages, training={"learning_rate": 0.5}), "test")
    tree = yaml.safe_load(dump_config(config))
    assert tree["stages"] == stages
    assert "tuning" not in tree["model"]
    assert not {"epochs", "max_steps"} & tree["training"].keys()
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "c.yaml").stages == config.stages


def test_each_stage_is_a_run_of_its_own() -> None:
    stages = [
        {"tuning": "frozen", "epochs": 2, "learning_rate": 0.01},
        {"tuning": "full", "steps": 9},
        {"tuning": "frozen"},
    ]
    training = {"learning_rate": 0.5, "max_steps": 7}
    runs = stage_runs(parse_config(changed(stages=stages, training=training), "test"))
    assert [run.output_dir for run in runs] == [
        Path("out/stage-1"),
        Path("out/stage-2"),
        Path("out"),
    ]
    assert [run.model.tuning for run in runs] == ["frozen", "full", "frozen"]
    assert [run.training.learning_rate for run in runs] == [0.01, 0.5, 0.5]
    assert [(run.training.max_steps, run.training.epochs) for run in runs] == [
        (None, 2),
        (9, 3),
        (7, 3),
    ]
    plain = parse_config(TREE, "test")
    assert stage_runs(plain) == [plain]


def test_the_configuration_of_a_stage_reads_back() -> None:
    """Even where it has nothing that decays, and the stage after it has."""
    training = {"weight_decay": 0.1, "decay_embeddings": False}
    stages = [{"tuning": "frozen", "steps": 9}, {"tuning": "full"}]
    runs = stage_runs(parse_config(changed(stages=stages, training=training), "test"))
    assert [run.training.weight_decay for run in runs] == [0, 0.1]
    for run in runs:
        assert dump_config(parse_config(yaml.safe_load(dump_config(run)), "test")) == dump_config(
            run
        )


@pytest.mark.parametrize(
    "text", ["a: [", "- 1\n- 2", "!!python/object/apply:os.system ['x']", "x: &a [*a, *a]\n y: 1"]
)
def test_broken_yaml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml"):
        load_config(file)
