"""Writes `python_api.ipynb` from the cells of `python_api.py`: `python examples/notebook.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

SCRIPT = Path(__file__).with_name("python_api.py")
MARK = re.compile(r"^# %%(?P<kind> \[markdown\])?\n", re.MULTILINE)


def draw(script: str) -> str:
    """The notebook of a script whose cells begin with `# %%` or `# %% [markdown]`."""
    _, *parts = MARK.split(script)
    cells = [
        _cell(number, bool(kind), text.strip("\n"))
        for number, (kind, text) in enumerate(zip(parts[::2], parts[1::2], strict=True))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell(number: int, is_markdown: bool, text: str) -> dict[str, object]:
    if is_markdown:
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    cell = {
        "cell_type": "markdown" if is_markdown else "code",
        "id": f"cell-{number}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    return cell if is_markdown else {**cell, "execution_count": None, "outputs": []}


if __name__ == "__main__":
    target = SCRIPT.with_suffix(".ipynb")
    target.write_text(draw(SCRIPT.read_text(encoding="utf-8")), encoding="utf-8")
