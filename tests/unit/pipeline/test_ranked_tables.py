"""What is printed of a fitted ranker."""

from __future__ import annotations

import io

from rich.console import Console
from tests.unit.reporting.making import ranked

from sidtune.pipeline.rank import render


def test_features_are_told_in_words() -> None:
    console = Console(file=io.StringIO(), width=80)
    for part in render(ranked()):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["transitions", "from", "the", "latest", "item", "70%"] in lines
    assert not any("from_last" in line for line in lines)
