"""The site of the documentation has every page, and its links lead where those of the forge do."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SITE = runpy.run_path(str(ROOT / "docs" / "conf.py"))
FORGE = SITE["FORGE"]


def test_every_page_is_in_the_navigation_once() -> None:
    named = [page for pages in SITE["NAVIGATION"].values() for page in pages]
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.rst"), *ROOT.glob("*.md")]
    names = {path.stem if path.parent.name == "docs" else f"../{path.stem}" for path in pages}
    assert sorted(named) == sorted(names - {"../README"})


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("README.md", "[a](docs/start.md)", "[a](docs/start.md)"),
        ("README.md", "[a](docs/start.md#b) [c](#d)", "[a](docs/start.md#b) [c](#d)"),
        ("README.md", "![a](docs/figures/flow.svg)", "![a](docs/figures/flow.svg)"),
        ("README.md", "[a](https://example.org/a)", "[a](https://example.org/a)"),
        ("README.md", "[a](Makefile)", f"[a]({FORGE}/blob/main/Makefile)"),
        ("docs/rl.md", "[a](../Makefile)", f"[a]({FORGE}/blob/main/Makefile)"),
        ("docs/rl.md", "[a](../src/sidtune)", f"[a]({FORGE}/tree/main/src/sidtune)"),
        ("docs/rl.md", "[a](reference.py)", f"[a]({FORGE}/blob/main/docs/reference.py)"),
        ("docs/rl.md", "```\n[a](../src)\n```", "```\n[a](../src)\n```"),
        # Left as it is, the build reports it.
        ("docs/rl.md", "[a](absent.py)", "[a](absent.py)"),
    ],
)
def test_links_that_leave_the_pages_lead_to_the_forge(page: str, text: str, expected: str) -> None:
    assert SITE["for_the_site"](ROOT / page, text) == expected


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ('<script src="https://cdn.example.org/a.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example.org/css">', True),
        ("@import 'https://example.org/a.css';", True),
        ("background: url(https://example.org/a.png)", True),
        ('<script src="_static/a.js"></script>', False),
        ('<a href="https://example.org">a page</a>', False),
        ("background: url(a.png)", False),
    ],
)
def test_what_a_page_would_load_from_elsewhere_is_found(text: str, loads: bool) -> None:
    assert bool(SITE["LOADS"].search(text)) == loads
