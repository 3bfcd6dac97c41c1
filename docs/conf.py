"""The site of the documentation, built by Sphinx: `make docs`.

README and the pages of `docs/` are written for a forge. The same files, unchanged, are the pages of
the site: links between pages stay, and links to other files of the repository lead to the forge.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import sidtune

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
FORGE = "https://github.com/sidtune/sidtune"
NAVIGATION = {
    "Begin": ["start", "own-data", "examples", "templates", "configuration"],
    "Models": ["sids", "lora", "rl", "quality"],
    "Results": ["evaluation", "ranking", "report"],
    "Use a model": ["serving", "export", "publishing"],
    "Operation": ["performance", "scale", "reliability", "troubleshooting"],
    "Coming from": ["minionerec", "lc-rec", "recbole", "llama-factory"],
    "Python": ["python", "reference"],
    "简体中文": [
        "../README.zh-CN",
        "start.zh-CN",
        "own-data.zh-CN",
        "templates.zh-CN",
        "sids.zh-CN",
        "lora.zh-CN",
        "evaluation.zh-CN",
        "serving.zh-CN",
        "troubleshooting.zh-CN",
    ],
    "Project": ["architecture", "../CONTRIBUTING", "../SECURITY", "../CHANGELOG"],
}
# Pages whose heading says too little in the sidebar.
TITLES = {"../README.zh-CN": "概览"}
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()[^)#:\s]+(?=[)#])")
# What makes a browser load something from elsewhere.
LOADS = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["'](?:https?:)?//[^>]*>"""
    r"""|(?:@import|url\()\s*["']?(?:https?:)?//[^)]*"""
)
INDEX = (
    '<!doctype html><title>sidtune</title><meta http-equiv="refresh" content="0; url=README.html">'
)

project = "sidtune"
author = "The sidtune authors"
copyright = author
version = release = sidtune.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README*.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.*"]
exclude_patterns = [".*", "benchmarks", "build", "dist", "recipes", "runs", "site", "src", "tests"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
highlight_language = "none"
default_role = "code"
# Blocks that leave something out, with "…", are not quite their language.
suppress_warnings = ["misc.highlighting_failure"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
html_title = "sidtune"
html_theme = "furo"
html_theme_options = {
    "source_repository": FORGE,
    "source_branch": "main",
    "source_directory": "",
}
html_show_sphinx = False


def for_the_site(page: Path, text: str) -> str:
    """The text of a page with links to files that are no pages leading to the forge."""

    def moved(found: re.Match[str]) -> str:
        target = (page.parent / found[0]).resolve()
        if not target.exists() or target.suffix in {".md", ".rst", ".svg", ".webp"}:
            return found[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"{FORGE}/{kind}/main/{target.relative_to(ROOT).as_posix()}"

    code = [span.span() for span in FENCE.finditer(text)]
    return LINK.sub(
        lambda found: (
            found[0] if any(start <= found.start() < end for start, end in code) else moved(found)
        ),
        text,
    )


def navigation() -> str:
    """The tables of contents of the sidebar, as MyST writes them."""
    tables = []
    for caption, pages in NAVIGATION.items():
        entries = "\n".join(_entry(page) for page in pages)
        tables.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n")
    return "\n" + "\n".join(tables)


def _entry(page: str) -> str:
    name = f"docs/{page}".replace("docs/../", "")
    return f"{TITLES[page]} <{name}>" if page in TITLES else name


def read(app: Sphinx, name: str, content: list[str]) -> None:
    """Change the text of a page before it is parsed."""
    content[0] = for_the_site(Path(app.env.doc2path(name)), content[0])
    if name == root_doc:
        content[0] += navigation()


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Let the folder open with README, and see that no page loads anything from elsewhere."""
    if exception:
        return
    site = Path(app.outdir)
    (site / "index.html").write_text(INDEX, encoding="utf-8")
    for path in (path for path in site.rglob("*") if path.suffix in {".html", ".css"}):
        if found := LOADS.search(path.read_text(encoding="utf-8")):
            raise ValueError(f"{path}: loads {found[0]}")


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("source-read", read)
    app.connect("build-finished", finish)
