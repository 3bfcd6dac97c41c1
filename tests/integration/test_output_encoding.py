"""Every command says what it says on terminals and in files that are not UTF-8; JSON keeps its
values.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny_data import TITLES, tiny_tree

from sidtune.commands import demo_steps
from sidtune.commands import main as cli
from sidtune.model.new_base import NewBase, create_base
from sidtune.tasks.config_file import parse_config
from sidtune.training.train import train

# Cyrillic, Japanese, Arabic, an emoji outside the first plane, and what latin-1 has.
NAMES = [
    "Синяя кружка",
    "赤いテント",
    "موقد غاز",
    "Полка 🪵",
    "Café crème",
    "Flûte – d’étain",
    "ジャム瓶 → 12",
    "Перо",
]
ENCODINGS = ("ascii", "latin-1")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration whose titles, users and paths are not Latin, and a
    trained run.
    """
    folder = tmp_path_factory.mktemp("shop") / "магазин"
    tree = tiny_tree(folder, training={"max_steps": 4})
    items = {str(i): {"title": name, "description": name} for i, name in enumerate(NAMES)}
    Path(tree["data"]["items"]).write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    for split in ("train", "valid", "test"):
        file = Path(tree["data"][split])
        text = file.read_text(encoding="utf-8").replace("\nu", "\nЖу")
        for old, new in zip(TITLES, NAMES, strict=True):
            # One title stays as it was, for `check` to complain of.
            text = text if old == TITLES[0] else text.replace(old, new)
        file.write_text(text, encoding="utf-8")
    (folder / "c.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    assert train(parse_config(tree, "test"))
    return folder


def said(
    monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: object
) -> tuple[str, str, int]:
    """Standard output, standard error and exit status of the entry point on streams as Python opens
    them.
    """
    streams = [io.BytesIO(), io.BytesIO()]
    for name, stream, errors in zip(
        ("stdout", "stderr"), streams, ("strict", "backslashreplace"), strict=True
    ):
        monkeypatch.setattr(
            sys,
            name,
            io.TextIOWrapper(stream, encoding=encoding, errors=errors, write_through=True),
        )
    monkeypatch.setattr(sys, "argv", ["sidtune", *map(str, arguments)])
    status = 0
    try:
        cli.main()
    except SystemExit as end:
        status = int(end.code or 0)
    sys.stdout.flush()
    out, err = (stream.getvalue().decode(encoding) for stream in streams)
    return out, err, status


COMMANDS: dict[str, list[str]] = {
    "check": ["check", "{shop}/c.yaml"],
    "preview": ["preview", "{shop}/c.yaml", "-n", "1"],
    "train": ["train", "{shop}/c.yaml", "output_dir={out}/новый", "training.max_steps=1"],
    "sft": [
        *("sft", "--base_model", "{shop}/base", "--output_dir", "{out}/новый"),
        *("--train_file", "{shop}/data/train.csv", "--eval_file", "{shop}/data/valid.csv"),
        *(
            "--sid_index_path",
            "{shop}/data/shop.index.json",
            "--item_meta_path",
            "{shop}/data/shop.item.json",
        ),
        *("--category", "Книги", "--dry-run"),
    ],
    "evaluate": ["evaluate", "{shop}/run", "--output", "{out}/оценка"],
    "recommend": ["recommend", "{shop}/run", "--history", "0,2"],
    "baselines": ["baselines", "{shop}/c.yaml", "--simple", "--output", "{out}/основа"],
    "new-model": [
        "new-model",
        "{out}/модель",
        "--items",
        "{shop}/data/shop.item.json",
        "--hidden",
        "32",
    ],
    "demo": ["demo", "--output", "{out}/показ"],
    "compare": ["compare", "{shop}/run", "{shop}/run"],
}


def smaller_base(*arguments: Any, **shape: Any) -> NewBase:
    """In place of the demo's, whose training takes most of its time."""
    return create_base(*arguments, **shape | {"hidden": 32, "layers": 1})


# The demo takes long, and prints what the others do.
PRINTS = [
    pytest.param(*pair, marks=pytest.mark.long if pair[0] == "demo" else [])
    for pair in product(COMMANDS, ENCODINGS)
]


@pytest.mark.parametrize(("name", "encoding"), PRINTS)
def test_every_command_prints(
    name: str, encoding: str, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "compare":
        said(monkeypatch, "utf-8", "evaluate", shop / "run")
    monkeypatch.setattr(demo_steps.run_demo, "__defaults__", (20, False))
    monkeypatch.setattr(demo_steps, "create_base", smaller_base)
    arguments = [part.format(shop=shop, out=tmp_path) for part in COMMANDS[name]]
    out, err, status = said(monkeypatch, encoding, *arguments)
    assert status == (1 if name == "check" else 0), err
    assert out
    if name in ("check", "preview", "recommend"):
        shown = NAMES[0] if name == "check" else NAMES[1] if name == "preview" else "SID"
        assert shown.encode("ascii", "backslashreplace").decode() in out.replace("\n", "")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["recommend", "{shop}/run", "--history", "0,2", "--json"],
        ["preview", "{shop}/c.yaml", "-n", "1", "--json"],
        ["check", "{shop}/c.yaml", "--json"],
    ],
)
def test_json_has_the_same_values(
    arguments: list[str], encoding: str, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [part.format(shop=shop) for part in arguments]
    right, _, _ = said(monkeypatch, "utf-8", *asked)
    found, _, _ = said(monkeypatch, encoding, *asked)
    assert json.loads(found) == json.loads(right)
    assert any(not c.isascii() for c in right)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["sft", "--help"], ["train", "/нет/такого.yaml"], ["evaluate", "/нет"], ["трейн"]],
)
def test_help_and_mistakes(
    arguments: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err, status = said(monkeypatch, encoding, *arguments)
    assert out + err
    assert status == (0 if "--help" in arguments else 2)


def test_our_own_signs_become_ascii(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, _, _ = said(monkeypatch, "ascii", "check", shop / "c.yaml")
    assert "\n    -> " in out
    assert r"\u2192" not in out


def test_what_utf8_cannot_say_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file name that is no UTF-8 comes with halves of surrogate pairs."""
    _, err, status = said(monkeypatch, "utf-8", "train", os.fsdecode(b"/nosuch/\xff.yaml"))
    assert status == 2
    assert "/nosuch/" in err


def test_a_way_that_the_user_chose_stays(shop: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sidtune",
        "preview",
        str(shop / "c.yaml"),
        "--task",
        "title_to_sid",
        "-n",
        "2",
    ]
    known = {**os.environ, "PYTHONIOENCODING": "ascii:replace"}
    done = subprocess.run(command, capture_output=True, env=known, timeout=300, check=True)
    assert b"????? ??????" in done.stdout
    assert rb"\u" not in done.stdout


END = b"---"
# Several commands in a process whose locale was settled when it started.
ONE_AFTER_THE_OTHER = f"""
import json, sys
from sidtune.commands.main import main
for arguments in json.loads(sys.argv[1]):
    print({END.decode()!r}, flush=True)
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def test_a_locale_without_utf8(shop: Path, tmp_path: Path) -> None:
    """Files are UTF-8 all the same: Python would read and write ASCII where nobody says what."""
    known = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "OMP_NUM_THREADS": "1",
    }
    # Names of files are another matter: without UTF-8 there is no way to write them.
    copy = shutil.copytree(
        shop, tmp_path / "shop", ignore=lambda folder, names: {"run", "cache"} & set(names)
    )
    text = (shop / "c.yaml").read_text(encoding="utf-8").replace(str(shop), str(copy))
    (copy / "c.yaml").write_text(f"# {NAMES[1]}\n{text}", encoding="utf-8")
    steps = [
        ["train", str(copy / "c.yaml"), "logging.every=1"],
        ["evaluate", str(copy / "run")],
        ["recommend", str(copy / "run"), "--history", "0,2", "--json"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(steps)],
        capture_output=True,
        env=known,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    *_, answer = done.stdout.split(END)
    titles = [item["title"] for item in json.loads(answer)["items"]]
    assert sorted(titles) == sorted(NAMES)
