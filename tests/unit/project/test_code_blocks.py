"""Code blocks of the documentation parse, and what is marked as runnable runs.

A block below the line `<!-- runnable -->` is run, in the folder of a tiny shop: Python as it
stands, and lines of `sidtune` by the commands that they name. The blocks of a page run in order.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.asking import call
from tests.tiny_models import make_base

import sidtune
from sidtune.files.yaml_files import parse_yaml
from sidtune.pipeline.defaults import refuse_faults
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_sids
from sidtune.templates import FORMS, load_templates

ROOT = Path(__file__).parents[3]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?P<marked><!-- runnable -->\n\n?)?(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
# A configuration that an excerpt is put into.
WHOLE = {
    "output_dir": "runs/shop",
    "model": {"base": "base"},
    "data": {"items": "i.json", "index": "x.json", "train": "t.csv", "valid": "v.csv"},
}
# What only `sidtune sids` reads.
FOR_SIDS = {"sids.md", "sids.zh-CN.md"}
ITEMS = 20


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    runnable: bool


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text")) + 1
        code = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(page, line, found["language"], code, bool(found["marked"]))


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUNNABLE = [block for block in BLOCKS if block.runnable]


def of(*languages: str) -> Any:
    chosen = [block for block in BLOCKS if block.language in languages]
    assert chosen
    return pytest.mark.parametrize("block", chosen, ids=lambda b: f"{b.page.name}:{b.line}")


def test_every_language_is_known() -> None:
    assert {block.language for block in BLOCKS} <= {"", "bash", "json", "python", "yaml"}


@of("yaml")
def test_yaml_is_a_configuration_or_a_template(block: Block, tmp_path: Path) -> None:
    tree = parse_yaml(block.text, block.page.name)
    assert isinstance(tree, dict)
    if tree.keys() <= set(FORMS):
        (tmp_path / "mine.yaml").write_text(block.text, encoding="utf-8")
        load_templates(tmp_path / "mine.yaml")
    elif block.page.name in FOR_SIDS:
        parse_sids(tree, block.page.name)
    elif "output_dir" in tree:
        refuse_faults(tree, block.page.name)
    else:
        assert tree.keys() <= Config.model_fields.keys()
        refuse_faults(put_into(tree, WHOLE), block.page.name)


def put_into(excerpt: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the keys of the excerpt in place of its own."""
    inside = {
        key: put_into(value, whole[key])
        if isinstance(value, dict) and isinstance(whole.get(key), dict)
        else value
        for key, value in excerpt.items()
    }
    return {**whole, **inside}


@of("json")
def test_json_parses(block: Block) -> None:
    assert [json.loads(line) for line in block.text.splitlines() if line]


@of("python")
def test_python_compiles(block: Block) -> None:
    compile(block.text, f"{block.page.name}:{block.line}", "exec")


def test_shell_parses() -> None:
    for block in BLOCKS:
        if block.language == "bash":
            done = subprocess.run(
                ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
            )
            assert not done.stderr, f"{block.page.name}:{block.line}: {done.stderr}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documentation speaks of: shop.yaml, and runs/shop of another run."""
    folder = tmp_path_factory.mktemp("shop")
    make_base(folder / "base")
    items = {str(i): {"title": f"Mug number {i}"} for i in range(ITEMS)}
    index = {str(i): [f"<a_{i % 4}>", f"<b_{i % 10}>", f"<c_{i % 7}>"] for i in range(ITEMS)}
    index["0"] = ["<a_3>", "<b_9>", "<c_1>"]
    (folder / "shop.item.json").write_text(json.dumps(items))
    (folder / "shop.index.json").write_text(json.dumps(index))
    for split in ("train", "valid", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "history", "item_id"])
            for user in range(20):
                first = user + 3 * ("train", "valid", "test").index(split)
                walk = [(first + step) % ITEMS for step in range(4)]
                writer.writerow([user, walk[:-1], walk[-1]])
    files = {split: f"{split}.csv" for split in ("train", "valid", "test")}
    tree = {
        "output_dir": "runs/new",
        "model": {"base": "base"},
        "data": {"items": "shop.item.json", "index": "shop.index.json", **files},
        "tasks": {"sid_next": None},
        "encoding": {"cache_dir": "cache"},
        "training": {"batch_size": 16, "epochs": 2, "learning_rate": 0.01, "warmup": 1},
        "eval": {"every": 2},
        "rank": {"fit": "never"},
        "logging": {"report": False},
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(tree))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sidtune.train(sidtune.load_config("shop.yaml", ["output_dir=runs/shop"]))
    return folder


@pytest.mark.parametrize(
    "page", sorted({block.page for block in RUNNABLE}), ids=lambda page: page.name
)
def test_runnable_blocks_run(
    page: Path, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)
    names: dict[str, Any] = {}
    for block in RUNNABLE:
        if block.page != page:
            continue
        if block.language == "python":
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), names)
            assert capsys.readouterr().out
        else:
            assert block.language == "bash"
            run_lines(block)


def run_lines(block: Block) -> None:
    for line in block.text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "sidtune", line
        done = call(*arguments)
        assert done.exit_code == 0, f"{line}: {done.output}"


def test_there_are_runnable_blocks() -> None:
    assert {block.language for block in RUNNABLE} == {"bash", "python"}
