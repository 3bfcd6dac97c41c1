"""README says the same in both languages: headings, code, links and figures agree section by
section.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
# As forges write them; each page links to the other.
SWITCH = {"README.md", "README.zh-CN.md"}
SCALES = {" million": 10**6, " billion": 10**9, " 万": 10**4, " 亿": 10**8}
BLOCK = re.compile(r"^ *```.*?^ *```$|^    \S[^\n]*$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")


class Section(NamedTuple):
    """A heading's level and what stands below it."""

    level: int
    anchor: str
    text: str


def sections(text: str) -> list[Section]:
    """The sections of a page, cut at its headings, which are no comments of code."""
    hidden = BLOCK.sub(lambda found: re.sub("#", " ", found[0]), text)
    starts = [*re.finditer(r"^(#+) (.+)$", hidden, re.MULTILINE)]
    ends = [*(start.start() for start in starts[1:]), len(text)]
    return [
        Section(len(start[1]), "#" + start[2].lower().replace(" ", "-"), text[start.end() : end])
        for start, end in zip(starts, ends, strict=True)
    ]


def code(section: Section) -> list[list[str]]:
    """The lines of its blocks without comments, which are translated."""
    return [
        [re.sub(r"\s*(^|\s)#.*", "", line).rstrip() for line in found[0].splitlines()]
        for found in BLOCK.finditer(section.text)
    ]


def prose(section: Section) -> str:
    return BLOCK.sub("", section.text)


def spans(section: Section) -> Counter[str]:
    """Its code between backticks."""
    return Counter(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(section)))


def links(section: Section, page: list[Section]) -> Counter[str]:
    """Where its links lead; those inside the page by the number of the heading."""
    anchors = {part.anchor: f"heading {place}" for place, part in enumerate(page)}
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(section))
    return Counter(
        anchors[target] if target.startswith("#") else target
        for target in targets
        if target not in SWITCH
    )


def figures(section: Section) -> Counter[float]:
    """Its numbers; 3.5 million and 350 万 are the same one."""
    text = re.sub(r"\]\([^)]*\)|`[^`]+`", " ", prose(section))
    found: Counter[float] = Counter()
    for number in NUMBER.finditer(text):
        after = " ".join(text[number.end() : number.end() + 9].split("\n"))
        scale = next((value for name, value in SCALES.items() if after.startswith(name)), 1)
        found[round(float(number[0].replace(",", "")) * scale, 6)] += 1
    return found


PAGES = [sections(path.read_text(encoding="utf-8")) for path in (ENGLISH, CHINESE)]
PAIRS = list(zip(*PAGES, strict=False))


def test_headings_agree_in_number_and_order() -> None:
    english, chinese = ([section.level for section in page] for page in PAGES)
    assert english == chinese
    assert len(english) > 5


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[pair[0].anchor for pair in PAIRS])
def test_code_links_and_figures_agree(english: Section, chinese: Section) -> None:
    assert code(english) == code(chinese)
    assert links(english, PAGES[0]) == links(chinese, PAGES[1])
    assert figures(english) == figures(chinese)
    assert spans(english) == spans(chinese)
    tables = [
        re.findall(r"^\| .*$", prose(section), re.MULTILINE) for section in (english, chinese)
    ]
    assert len(tables[0]) == len(tables[1])


def test_each_page_links_to_the_other_at_its_top() -> None:
    for path, other in ((ENGLISH, CHINESE), (CHINESE, ENGLISH)):
        assert f"]({other.name})" in path.read_text(encoding="utf-8").split("\n\n")[1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("about 3.5 million of them, HR@10 0.12", "大约 350 万，HR@10 为 0.12", True),
        ("7 billion\nparameters", "70 亿参数", True),
        ("3,686 items", "3,686 个物品", True),
        ("3,686 items", "3,868 个物品", False),
        ("HR@10 0.12", "HR@10 为 0.13", False),
        ("one of `a 1`", "`a 1` 之一", True),
    ],
)
def test_figures_are_compared(one: str, other: str, same: bool) -> None:
    assert (figures(Section(1, "", one)) == figures(Section(1, "", other))) == same


def test_comments_of_code_are_not_compared() -> None:
    one, other = (
        Section(1, "", f"```\nsidtune run {rest}\n```")
        for rest in ("a.yaml  # all stages", "a.yaml    # 全部阶段")
    )
    assert code(one) == code(other)
    assert code(one) != code(Section(1, "", "```\nsidtune run b.yaml  # all stages\n```"))
