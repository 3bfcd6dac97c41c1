"""What `sidtune check` finds in small shops whose faults are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_data import tiny_config

from sidtune.checks.finding import Finding
from sidtune.checks.run import refuse_errors, run_checks
from sidtune.config import Config
from sidtune.inputs import Inputs


def findings(config: Config, about: str) -> list[Finding]:
    return [finding for finding in run_checks(Inputs(config)) if about in finding.message]


def edited(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_titles_with_html_and_titles_of_several_items(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert config.data.items
    assert not findings(config, "HTML") + findings(config, "share a title")
    names = {"1": "Red &amp; Blue", "2": "<b>Gas</b> Stove", "5": "Jam Jar", "7": "Wool Sock", "3": "Wool Sock"}
    edited(config.data.items, lambda items: items | {item: {"title": title} for item, title in names.items()})
    (html,), (shared,) = findings(config, "HTML"), findings(config, "share a title")
    assert (html.severity, html.where) == ("note", str(config.data.items))
    assert html.message.startswith("2 titles hold HTML")
    assert html.examples == ["item 1: &amp;", "item 2: <b>"]
    assert shared.severity == "note"
    assert shared.message == "5 items share a title with another item"
    assert shared.examples == ["'Wool Sock': items 3, 4, 7", "'Jam Jar': items 5, 6"]


def test_codes_are_announced_by_check_and_by_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert not findings(config, "disagree with the catalogue")
    refuse_errors(Inputs(config))
    said = " ".join(capsys.readouterr().out.split())
    assert "SIDs are numbers and are read as tokens: [0, 0, 0] is <a_0><b_0><c_0>" in said


@pytest.mark.parametrize(
    ("sid_tokens", "severity", "how"), [(None, "warning", "text"), (False, "note", "text"), (True, "note", "tokens")]
)
def test_sids_in_instructions_are_noticed(tmp_path: Path, sid_tokens: bool | None, severity: str, how: str) -> None:
    file = tmp_path / "i.jsonl"
    texts = [("What is a mug?", "A cup."), ("Where is <a_0><b_0><c_0>?", "Here."), ("Name one.", "<a_1>, or <x_9>")]
    file.write_text("".join(json.dumps({"prompt": prompt, "response": answer}) + "\n" for prompt, answer in texts))
    given = {} if sid_tokens is None else {"sid_tokens": sid_tokens}
    tasks = {"sid_next": None, "instruction": given}
    config = tiny_config(tmp_path, data={"instructions": str(file)}, tasks=tasks)
    (found,) = findings(config, "instructions hold SID tokens")
    assert (found.severity, found.where) == (severity, str(file))
    assert found.message == f"2 of 3 instructions hold SID tokens, which are read as {how}"
    assert found.examples == ["record 2: <a_0><b_0><c_0>", "record 3: <a_1>"]
    assert bool(found.remedy) == (sid_tokens is None)
    file.write_text(json.dumps({"prompt": "What is <x_9> or </s>?", "response": "A cup."}) + "\n")
    assert not findings(config, "instructions hold SID tokens")
