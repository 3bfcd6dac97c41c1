"""Pages in Chinese say what those in English say: headings, code, links and figures agree section
by section.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
IN_CHINESE = ".zh-CN.md"
CHINESE = sorted([*ROOT.glob(f"*{IN_CHINESE}"), *(ROOT / "docs").glob(f"*{IN_CHINESE}")])
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


def links(section: Section, path: Path) -> Counter[str]:
    """Where its links lead, in whatever language; those to a heading of a page that is there in
    both languages by the number of the heading.
    """
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(section))
    return Counter(_leading(target, path) for target in targets)


def _leading(target: str, path: Path) -> str:
    name, sign, heading = target.partition("#")
    page = (path.parent / name).resolve() if name else path
    if sign and english(page) in map(english, CHINESE):
        anchors = [part.anchor for part in sections(page.read_text(encoding="utf-8"))]
        return f"{english(page).name}, heading {anchors.index(sign + heading)}"
    return target.replace(IN_CHINESE, ".md")


def rows(section: Section) -> list[int]:
    """The number of cells of each row of its tables."""
    return [row.count("|") for row in re.findall(r"^\|.*$", prose(section), re.MULTILINE)]


def figures(section: Section) -> Counter[float]:
    """Its numbers; 3.5 million and 350 万 are the same one."""
    text = re.sub(r"\]\([^)]*\)|`[^`]+`", " ", prose(section))
    found: Counter[float] = Counter()
    for number in NUMBER.finditer(text):
        after = " ".join(text[number.end() : number.end() + 9].split("\n"))
        scale = next((value for name, value in SCALES.items() if after.startswith(name)), 1)
        found[round(float(number[0].replace(",", "")) * scale, 6)] += 1
    return found


def english(path: Path) -> Path:
    return path.with_name(path.name.replace(IN_CHINESE, ".md"))


def test_there_are_pages_in_chinese() -> None:
    assert {"README.md", "start.md"} <= {english(path).name for path in CHINESE}


@pytest.mark.parametrize("path", CHINESE, ids=lambda path: path.name)
def test_pages_agree_section_by_section(path: Path) -> None:
    theirs, ours = (sections(page.read_text(encoding="utf-8")) for page in (path, english(path)))
    assert [section.level for section in ours] == [section.level for section in theirs]
    for one, other in zip(ours, theirs, strict=True):
        # Each page links to the other below its title, and not to itself.
        assert links(one, english(path)) == links(other, path), one.anchor
        assert code(one) == code(other), one.anchor
        assert spans(one) == spans(other), one.anchor
        assert figures(one) == figures(other), one.anchor
        assert rows(one) == rows(other), one.anchor


@pytest.mark.parametrize("path", CHINESE, ids=lambda path: path.name)
def test_each_page_links_to_the_other_below_its_title(path: Path) -> None:
    for page, other in ((path, english(path)), (english(path), path)):
        assert f"]({other.name})" in page.read_text(encoding="utf-8").split("\n\n")[1]


@pytest.mark.parametrize("path", CHINESE, ids=lambda path: path.name)
def test_links_lead_to_pages_in_chinese_where_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8").split("\n\n", 2)[2]
    for target in re.findall(r"\]\(([^)#\s]+\.md)", text):
        assert english(path).parent / target not in map(english, CHINESE), target


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
