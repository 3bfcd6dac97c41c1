"""Trackers get what `metrics.jsonl` gets, by the same names; those that are not installed are
skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_data import tiny_config
from transformers.integrations import integration_utils

from sidtune.base.errors import UserError
from sidtune.config.minionerec import to_config
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.training.arguments import training_arguments
from sidtune.training.records.trackers import TRACKERS, Tracking
from sidtune.training.train import train

# Where each keeps its files, without a server: variable → value below the test's folder.
OFFLINE = {
    "wandb": {"WANDB_MODE": "offline", "WANDB_DIR": "", "WANDB_SILENT": "true"},
    "trackio": {"TRACKIO_DIR": "trackio"},
    "mlflow": {"MLFLOW_TRACKING_URI": "mlflow", "MLFLOW_ALLOW_FILE_STORE": "true"},
    "swanlab": {"SWANLAB_MODE": "offline", "SWANLAB_LOG_DIR": "swanlog"},
}
FOLDERS = {"WANDB_DIR", "TRACKIO_DIR", "MLFLOW_TRACKING_URI", "SWANLAB_LOG_DIR"}
# Written by the integrations besides.
BESIDES = {"train/global_step"}


def short(folder: Path, *trackers: str, **logging: Any) -> Config:
    return tiny_config(
        folder,
        logging={"trackers": list(trackers), **logging},
        training={"max_steps": 1, "batch_size": 16},
        eval={"every": 1},
    )


def logged(config: Config) -> set[str]:
    """The names in `metrics.jsonl`, less those that are said once, at the end."""
    lines = (config.output_dir / "metrics.jsonl").read_text().splitlines()
    return {
        name
        for line in lines
        for name in json.loads(line)
        if name != "step" and not name.startswith("train_") and name != "total_flos"
    }


def test_tensorboard_has_the_names_of_metrics_jsonl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    ordinary = integration_utils.rewrite_logs
    config = short(tmp_path, "tensorboard")
    train(config)
    board = EventAccumulator(str(config.output_dir / "tensorboard"))
    board.Reload()
    assert logged(config) <= set(board.Tags()["scalars"])
    assert integration_utils.rewrite_logs is ordinary, "the names of other programs stay"


@pytest.mark.parametrize("name", sorted(OFFLINE))
def test_others_have_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = pytest.importorskip(name, reason=f"pip install 'sidtune[{name}]'")
    for variable, value in OFFLINE[name].items():
        place = str(tmp_path / value) if variable in FOLDERS else value
        monkeypatch.setenv(variable, place)
    if TRACKERS[name].project:  # type: ignore[index]
        # Restored afterwards.
        monkeypatch.setenv(TRACKERS[name].project, "")  # type: ignore[index]
    seen: set[str] = set()
    function = "log_metrics" if name == "mlflow" else "log"
    ordinary = getattr(module, function)

    def recording(*arguments: Any, **named: Any) -> Any:
        seen.update((arguments or (named["metrics"],))[0])
        return ordinary(*arguments, **named)

    def begun(self: Tracking, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        # Some trackers set their functions anew when a run begins.
        nonlocal ordinary
        ordinary = getattr(module, function)
        monkeypatch.setattr(module, function, recording)

    begin = Tracking.on_train_begin
    monkeypatch.setattr(Tracking, "on_train_begin", begun)
    config = short(tmp_path, name, project="shop", run_name="first")
    train(config)
    expected = {re.sub("[^0-9A-Za-z_/ .-]", "_", one) for one in logged(config)}
    found = {re.sub("[^0-9A-Za-z_/ .-]", "_", one) for one in seen}
    assert expected <= found
    assert not {one for one in found - BESIDES if one.startswith(("train/", "eval/"))}


@pytest.mark.parametrize("found", [None, ModuleSpec("wandb", None)], ids=["nothing", "a folder"])
def test_a_tracker_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: ModuleSpec | None
) -> None:
    ordinary = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: found if name == "wandb" else ordinary(name)
    )
    with pytest.raises(UserError, match=r"logging\.trackers: wandb is not installed") as error:
        training_arguments(short(tmp_path, "wandb"))
    assert error.value.hint == "Run: pip install 'sidtune[wandb]'"


def test_a_tracker_that_refuses_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            raise ValueError("no API key\nand more")

    monkeypatch.setattr(integration_utils, "WandbCallback", Refusing)
    monkeypatch.setenv("WANDB_PROJECT", "")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    tracking = Tracking("wandb", short(tmp_path, "wandb"))
    with pytest.raises(UserError, match="wandb cannot begin a run: no API key") as error:
        tracking.on_train_begin(None, None, None)  # type: ignore[arg-type]
    assert "WANDB_MODE=offline" in error.value.hint


def test_the_next_run_has_its_own_project_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str | None, str | None]] = []

    class Asking:
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            seen.append((os.environ.get("WANDB_PROJECT"), os.environ.get("WANDB_DIR")))

    monkeypatch.setattr(integration_utils, "WandbCallback", Asking)
    for variable in ("WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    named, unnamed = short(tmp_path, "wandb", project="shop"), short(tmp_path, "wandb")
    unnamed = unnamed.model_copy(update={"output_dir": tmp_path / "other"})
    for config in (named, unnamed):
        Tracking("wandb", config).on_train_begin(None, None, None)  # type: ignore[arg-type]
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_DIR", "here")
    Tracking("wandb", unnamed).on_train_begin(None, None, None)  # type: ignore[arg-type]
    assert seen == [
        ("shop", str(named.output_dir)),
        ("sidtune", str(unnamed.output_dir)),
        ("mine", "here"),
    ]
    assert (os.environ["WANDB_PROJECT"], os.environ["WANDB_DIR"]) == ("mine", "here")


@pytest.mark.parametrize(
    ("logging", "message"),
    [
        ({"trackers": ["wandb", "wandb"]}, "stands twice"),
        ({"project": "shop"}, "project has no effect without trackers"),
        ({"trackers": ["comet"]}, "'wandb'.*found 'comet'"),
    ],
)
def test_logging_that_cannot_be(tmp_path: Path, logging: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_config(tmp_path, logging=logging)


def test_minionerecs_flags(tmp_path: Path) -> None:
    flags: dict[str, Any] = dict.fromkeys(
        ("base_model", "train_file", "eval_file", "output_dir", "sid_index_path", "item_meta_path"),
        "x",
    )
    flags |= {"sample": -1, "seed": 1, "batch_size": 1, "micro_batch_size": 1, "num_epochs": 1}
    flags |= {"learning_rate": 0.1, "cutoff_len": 99, "freeze_llm": "False"}
    flags |= {"train_from_scratch": "False", "wandb_run_name": "first"}
    given = parse_config(to_config(**flags, wandb_project="shop"), "flags").logging
    assert (given.trackers, given.project, given.run_name) == (("wandb",), "shop", "first")
    assert parse_config(to_config(**flags, wandb_project=""), "flags").logging.trackers == ()
