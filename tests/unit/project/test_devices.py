"""An Apple GPU has no float64: a tensor comes to the CPU before it is made one."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"


def made_double_first(call: ast.Call) -> bool:
    """Whether this is `….double()….cpu()`."""
    chain = ast.unparse(call.func)
    return chain.endswith(".cpu") and any(f in chain for f in (".double()", ".to(torch.float64)"))


def test_no_tensor_becomes_float64_before_it_comes_to_the_cpu() -> None:
    found = [
        f"{file.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}"
        for file in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and made_double_first(node)
    ]
    assert not found
