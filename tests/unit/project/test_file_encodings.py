"""Text files are UTF-8 whatever the locale says: every call that opens one names the encoding."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Those of `os` and of modules here, which take no encoding.
OTHERS = ("os.open", "write_text", "read_text")
OPENING = ("open", "fdopen", "read_text", "write_text", "NamedTemporaryFile", "TextIOWrapper")


def calls(file: Path) -> Iterator[ast.Call]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def unnamed(call: ast.Call) -> bool:
    """Whether a call opens text and leaves the encoding to the locale."""
    function, keywords = ast.unparse(call.func), {keyword.arg for keyword in call.keywords}
    texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    if "encoding" in keywords or function in OTHERS:
        return False
    if function.startswith("subprocess.") and keywords & {"text", "universal_newlines"}:
        return True
    name = function.rsplit(".", 1)[-1]
    binary = any(isinstance(text, str) and "b" in text for text in texts)
    given = name == "read_text" and bool(call.args)
    return name in OPENING and not binary and not given


@pytest.mark.parametrize("folder", ["src", "benchmarks"])
def test_every_text_file_is_opened_as_utf8(folder: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for call in calls(file)
        if unnamed(call)
    ]
    assert not found
