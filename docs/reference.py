"""Writes the tables of configuration.md from the help of the keys, and the ranker's features into
ranking.md; `--check` only compares.

A table stands between `<!-- keys: SECTION -->` and `<!-- end of keys -->`, or between
`<!-- features -->` and `<!-- end of features -->`; all other text is a page's own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sidtune.ranker.sources import SOURCES
from sidtune.tasks import DEFAULT_TASKS, TASKS
from sidtune.tasks.keys import Key, all_keys, option_keys

FOLDER = Path(__file__).parent
TABLE = re.compile(r"(<!-- keys: (?P<name>.+?) -->\n).*?(?=<!-- end of keys -->)", re.DOTALL)
TOP, EVERY_TASK = "top level", "tasks.TASK"
FEATURES = re.compile(r"(<!-- features -->\n).*?(?=<!-- end of features -->)", re.DOTALL)


def draw(text: str) -> str:
    """The page of the keys with its tables as they should be."""
    if missing := set(sections()) - {found["name"] for found in TABLE.finditer(text)}:
        raise SystemExit(f"configuration.md: no table of {', '.join(sorted(missing))}")
    return TABLE.sub(lambda found: "\n".join([found[1], *table(found["name"]), "", ""]), text)


def sections() -> list[str]:
    """The names of the tables."""
    top = [key.name for key in all_keys().values() if key.is_section and _is_top(key)]
    return [TOP, EVERY_TASK, *top]


def _is_top(key: Key) -> bool:
    return "." not in key.name


def table(section: str) -> Iterator[str]:
    """The lines of one table."""
    if section == "tasks":
        yield from _tasks()
        return
    yield "| key | default | meaning |"
    yield "| --- | --- | --- |"
    keys = all_keys()
    if section == TOP:
        chosen = [key for key in keys.values() if _is_top(key) and key.default]
    elif section == EVERY_TASK:
        first = next(iter(TASKS))
        chosen = [keys[f"tasks.{first}.weight"], keys[f"tasks.{first}.sample"]]
        for name, task in TASKS.items():
            chosen += [keys[f"tasks.{name}.{option}"] for option in option_keys(task.options)]
    else:
        chosen = [key for key in keys.values() if key.name.startswith(f"{section}.")]
    for key in chosen:
        if not key.is_section or section == TOP:
            name = key.name.replace(f"tasks.{next(iter(TASKS))}.", f"{EVERY_TASK}.")
            yield f"| `{name}` | {key.default} | {_linked(key.help)} |"


def _linked(text: str) -> str:
    return re.sub(r"docs/(\w+\.md)", r"[\1](\1)", text)


def _tasks() -> Iterator[str]:
    yield "| task | prompt → response | in the default mixture |"
    yield "| --- | --- | --- |"
    for name, task in TASKS.items():
        yield f"| `{name}` | {task.help} | {'yes' if name in DEFAULT_TASKS else 'no'} |"


def draw_features(text: str) -> str:
    """The page of the ranker with its table of features as it should be."""
    lines = ["| feature | what it is |", "| --- | --- |"]
    for source in SOURCES.values():
        lines += [f"| `{name}` | {what} |" for name, what in source.columns.items()]
    return FEATURES.sub(lambda found: "\n".join([found[1], *lines, "", ""]), text)


PAGES = {"configuration.md": draw, "ranking.md": draw_features}


def main() -> None:
    """Write the pages, or compare them."""
    for name, drawn in PAGES.items():
        page = FOLDER / name
        text = page.read_text(encoding="utf-8")
        if "--check" not in sys.argv[1:]:
            page.write_text(drawn(text), encoding="utf-8")
        elif drawn(text) != text:
            raise SystemExit(f"{page} is not current: run python {Path(__file__).name} in docs/")


if __name__ == "__main__":
    main()
