"""What the environment says of a run: a launcher's variables count together, accelerate's change
nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.forking import Command
from tests.running import losses, run
from tests.tiny_data import tiny_config, tiny_tree
from typer.testing import CliRunner

from sidtune.base.errors import OneProcessError, UserError
from sidtune.commands.main import app
from sidtune.distributed import environment
from sidtune.distributed.environment import DECIDED, ENGINES, settle_environment

LAUNCHED = {
    "LOCAL_RANK": "0",
    "RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511",
}
READ = (*LAUNCHED, *ENGINES, *DECIDED, *environment.SWITCHES, *environment.SIZES, environment.CPU)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in READ:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def command(folder: Path, *arguments: object, **variables: str) -> tuple[int | None, str]:
    """The exit status of a command in its own process, and what it said."""
    log = folder / "command.log"
    done = Command([*map(str, arguments)], log, CUDA_VISIBLE_DEVICES="", **variables)
    return done.ends(), log.read_text()


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1", "PMI_SIZE": "2"},
    ],
)
def test_a_process_that_no_launcher_started_says_what_is_wrong(
    variables: dict[str, str], tmp_path: Path
) -> None:
    """An operator sets RANK and WORLD_SIZE for each container; mpirun and Slurm have words of their
    own.
    """
    status, said = command(tmp_path, "evaluate", "/nosuch", **variables)
    assert status == 2
    assert "error: " in said
    assert "/nosuch" in said
    assert "Traceback" not in said


MISFITS = [
    ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 is set without RANK and WORLD_SIZE"),
    ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "LOCAL_RANK=1 is set without RANK"),
    ({**LAUNCHED, "MASTER_ADDR": ""}, "set without MASTER_ADDR"),
    (
        {**LAUNCHED, "RANK": "3", "WORLD_SIZE": "2"},
        "LOCAL_RANK=0 RANK=3 WORLD_SIZE=2 are inconsistent",
    ),
    ({**LAUNCHED, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "2"}, "are inconsistent"),
    ({**LAUNCHED, "RANK": "one"}, "RANK: expected a whole number, found 'one'"),
]


@pytest.mark.parametrize(("variables", "said"), MISFITS)
def test_variables_of_a_launcher_that_do_not_fit(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process says it, whatever its rank: the others may know nothing of it."""
    given(monkeypatch, **variables)
    with pytest.raises(OneProcessError, match=said):
        settle_environment()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        MISFITS[0],
        (
            {"ACCELERATE_USE_DEEPSPEED": "true"},
            "selects DeepSpeed, which sidtune does not support",
        ),
    ],
)
def test_one_message(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(tiny_tree(tmp_path)))
    status, output = command(tmp_path, "train", file, **variables)
    assert status == 2
    assert said in " ".join(output.split())
    assert output.count("error: ") == 1
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("name", ENGINES)
def test_no_other_engine(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **{name: "1"})
    if command == "train":
        asked = tmp_path / "c.yaml"
        asked.write_text(yaml.safe_dump(tiny_tree(tmp_path)))
    else:
        asked = tmp_path
        (asked / "config.json").write_text("{}")
    result = CliRunner().invoke(app, [command, str(asked)])
    assert f"{name}=1 selects {ENGINES[name]}" in str(result.exception)


@pytest.mark.parametrize("value", ["false", "False", "0", "no", ""])
def test_an_engine_that_nobody_wants(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **dict.fromkeys(ENGINES, value))
    settle_environment()
    assert not any(name in os.environ for name in ENGINES), (
        "nor does accelerate stumble over an empty one"
    )


@pytest.mark.parametrize("name", [*ENGINES, *environment.SWITCHES, environment.CPU])
def test_neither_true_nor_false(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **{name: "perhaps"})
    with pytest.raises(UserError, match=f"{name}: expected true or false, found 'perhaps'"):
        settle_environment()


# What each asks for, were it heard; a device that has no memory could hold no weights.
UNWANTED = {
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "eager",
    "ACCELERATE_DYNAMO_MODE": "max-autotune",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "true",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "true",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "true",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "3",
    "ACCELERATE_GRADIENT_CLIPPING": "0.001",
    "ACCELERATE_TORCH_DEVICE": "meta",
}


def test_training_is_what_the_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert UNWANTED.keys() == DECIDED.keys()
    sections: dict[str, Any] = {"training": {"max_steps": 3, "precision": "fp32"}}
    plain = tiny_config(tmp_path, **sections)
    run(plain)
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda model, **_: compiled.append(model) or model)
    given(monkeypatch, **UNWANTED, ACCELERATE_USE_CPU="yes")
    capsys.readouterr()
    other = tiny_config(tmp_path, output_dir=str(tmp_path / "other"), **sections)
    run(other)
    assert losses(other) == losses(plain)
    assert not compiled
    said = " ".join(capsys.readouterr().err.split())
    for name, (decides, _) in DECIDED.items():
        assert f"warning: {name}={UNWANTED[name]} has no effect: use {decides}" in said


def test_what_accelerate_launch_always_sets_is_not_mentioned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(
        monkeypatch,
        ACCELERATE_MIXED_PRECISION="no",
        ACCELERATE_DYNAMO_BACKEND="NO",
        ACCELERATE_DYNAMO_MODE="default",
    )
    given(
        monkeypatch,
        ACCELERATE_DYNAMO_USE_FULLGRAPH="False",
        ACCELERATE_USE_CPU="False",
        ACCELERATE_CPU_AFFINITY="1",
    )
    given(monkeypatch, **LAUNCHED)
    settle_environment()
    assert capsys.readouterr().err == ""
    assert {name: os.environ[name] for name in LAUNCHED} == LAUNCHED
    assert os.environ["ACCELERATE_CPU_AFFINITY"] == "1"


def test_the_cpu_is_not_taken_while_a_gpu_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ACCELERATE_USE_CPU="true")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="ACCELERATE_USE_CPU=true, but a GPU is visible"):
        settle_environment()


def test_several_processes_that_no_launcher_started_are_single_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, RANK="1", WORLD_SIZE="2")
    settle_environment()
    assert (
        "WORLD_SIZE=2 is set without LOCAL_RANK, so this is a single process"
        in capsys.readouterr().err
    )
    assert not {"RANK", "WORLD_SIZE"} & os.environ.keys()
    given(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="-1")
    settle_environment()
    assert capsys.readouterr().err == "", "it is one process that was asked for"


def test_a_run_under_a_launcher_of_one_process(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(tiny_tree(tmp_path, training={"max_steps": 2})))
    status, said = command(tmp_path, "train", file, **LAUNCHED)
    assert status == 0, said
