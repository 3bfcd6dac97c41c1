"""The settings by the size of the data are those of the documentation."""

import re
from pathlib import Path

from sidtune.pipeline.sizes import SIZES, size_for

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_table_of_the_documentation_is_what_is_chosen() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("### Without `model.base`")[2]
    lines = re.findall(r"^\| (below [\d,]+|more) \| (.+) \|$", text, re.MULTILINE)
    assert len(lines) == len(SIZES)
    measured = []
    for (bound, cells), size in zip(lines, SIZES, strict=True):
        if bound != "more":
            assert float(bound.removeprefix("below ").replace(",", "")) == size.below
        per_user, *values, where = cells.split(" | ")
        assert per_user == (f"{size.per_user} and more" if size.per_user else "any")
        assert [float(value) for value in values] == list(size[2:])
        found = re.search(r"\(([\d,]+)(?: of ([\d,]+) users)?\)", where)
        assert found
        targets, users = (int((number or found[1]).replace(",", "")) for number in found.groups())
        measured.append(size_for(targets, users))
    assert measured == list(SIZES), "each line is measured on a shop of its size"
