"""What `sidtune check` finds in small shops whose faults are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_data import tiny_config, tiny_tree

from sidtune.checks.finding import Finding
from sidtune.checks.run import refuse_errors, run_checks
from sidtune.inputs import Inputs
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.training.train import train


def findings(config: Config, about: str) -> list[Finding]:
    return [finding for finding in run_checks(Inputs(config)) if about in finding.message]


def edited(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_titles_with_html_and_titles_of_several_items(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert config.data.items
    assert not findings(config, "HTML") + findings(config, "share a title")
    names = {
        "1": "Red &amp; Blue",
        "2": "<b>Gas</b> Stove",
        "5": "Jam Jar",
        "7": "Wool Sock",
        "3": "Wool Sock",
    }
    edited(
        config.data.items,
        lambda items: items | {item: {"title": title} for item, title in names.items()},
    )
    (html,), (shared,) = findings(config, "HTML"), findings(config, "share a title")
    assert (html.severity, html.where) == ("note", str(config.data.items))
    assert html.message.startswith("2 titles contain HTML")
    assert html.examples == ["item 1: &amp;", "item 2: <b>"]
    assert shared.severity == "note"
    assert shared.message == "5 items share a title with another item"
    assert shared.examples == ["'Wool Sock': items 3, 4, 7", "'Jam Jar': items 5, 6"]


def test_codes_are_announced_by_check_and_by_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)

    def number(index: dict[str, list[str]]) -> dict[str, list[int]]:
        return {item: [int(token[3:-1]) for token in sid] for item, sid in index.items()}

    before = Inputs(config).catalogue
    assert not findings(config, "read as tokens")
    edited(config.data.index, number)
    (found,) = findings(config, "read as tokens")
    assert (found.severity, found.where) == ("note", str(config.data.index))
    assert found.message == "SIDs are numbers and are read as tokens: [0, 0, 0] is <a_0><b_0><c_0>"
    assert Inputs(config).catalogue == before
    assert not findings(config, "differ from the catalogue")
    refuse_errors(Inputs(config))
    said = " ".join(capsys.readouterr().out.split())
    assert "SIDs are numbers and are read as tokens: [0, 0, 0] is <a_0><b_0><c_0>" in said


@pytest.mark.parametrize(
    ("sid_tokens", "severity", "how"),
    [(None, "warning", "text"), (False, "note", "text"), (True, "note", "tokens")],
)
def test_sids_in_instructions_are_noticed(
    tmp_path: Path, sid_tokens: bool | None, severity: str, how: str
) -> None:
    file = tmp_path / "i.jsonl"
    texts = [
        ("What is a mug?", "A cup."),
        ("Where is <a_0><b_0><c_0>?", "Here."),
        ("Name one.", "<a_1>, or <x_9>"),
    ]
    file.write_text(
        "".join(
            json.dumps({"prompt": prompt, "response": answer}) + "\n" for prompt, answer in texts
        )
    )
    given = {} if sid_tokens is None else {"sid_tokens": sid_tokens}
    tasks = {"sid_next": None, "instruction": given}
    config = tiny_config(tmp_path, data={"instructions": str(file)}, tasks=tasks)
    (found,) = findings(config, "instructions contain SID tokens")
    assert (found.severity, found.where) == (severity, str(file))
    assert found.message == f"2 of 3 instructions contain SID tokens, which are read as {how}"
    assert found.examples == ["record 2: <a_0><b_0><c_0>", "record 3: <a_1>"]
    assert bool(found.remedy) == (sid_tokens is None)
    file.write_text(json.dumps({"prompt": "What is <x_9> or </s>?", "response": "A cup."}) + "\n")
    assert not findings(config, "instructions contain SID tokens")


@pytest.mark.parametrize(
    ("training", "stages", "warned"),
    [
        ({"max_steps": 6, "warmup": 20}, None, {"training.warmup": (20, 6, "25%")}),
        ({"max_steps": 6, "warmup": 6}, None, {"training.warmup": (6, 6, "83%")}),
        ({"max_steps": 6, "warmup": 5}, None, {}),
        ({"max_steps": 6, "warmup": 0.9}, None, {}),
        ({"max_steps": 1, "warmup": 0}, None, {}),
        # Thirty-six rows are three steps of an epoch.
        ({"epochs": 2, "warmup": 20}, None, {"training.warmup": (20, 6, "25%")}),
        ({"epochs": 10, "warmup": 20}, None, {}),
        ({"warmup": 7}, [("frozen", 30), ("full", 4)], {"training.warmup, stage 2": (7, 4, "43%")}),
        ({"warmup": 7}, [("frozen", 4), ("full", 7)], {"1": (7, 4, "43%"), "2": (7, 7, "86%")}),
    ],
)
def test_a_warmup_as_long_as_its_run_is_warned_of(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    training: dict[str, Any],
    stages: list[tuple[str, int]] | None,
    warned: dict[str, tuple[int, int, str]],
) -> None:
    tree = tiny_tree(tmp_path, tasks={"sid_next": None}, training=training)
    if "epochs" not in training:
        del tree["training"]["epochs"]
    if stages:
        tree["stages"] = [{"tuning": tuning, "steps": steps} for tuning, steps in stages]
    config = parse_config(tree, "test")
    found = findings(config, "warmup takes")
    assert [finding.severity for finding in found] == ["warning"] * len(warned)
    for finding, (where, (warmup, steps, share)) in zip(found, warned.items(), strict=True):
        assert finding.where.endswith(where)
        assert (
            finding.message
            == f"warmup takes {warmup} steps and training {steps}, so the learning rate never"
            f" reaches its peak: it ends at {share} of the peak"
        )
    capsys.readouterr()
    train(config, dry_run=True)
    said = " ".join("".join(capsys.readouterr()).split())
    assert said.count("warmup takes") == len(warned), "once for each stage"
    assert all(
        f"warmup takes {warmup} steps and training {steps}," in said
        for warmup, steps, _ in warned.values()
    )


def test_layers_that_lora_cannot_find_are_named(tmp_path: Path) -> None:
    lora = {"tuning": "lora", "lora": {"targets": ["q_proj", "qkv"]}}
    (found,) = findings(tiny_config(tmp_path, model=lora), "no linear layer")
    assert (found.severity, found.where) == ("error", "model.lora.targets")
    assert "'qkv'" in found.message
    assert "q_proj" in found.remedy
