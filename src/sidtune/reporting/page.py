"""The page of a report: what it consists of, and its HTML.

Everything that comes from a run passes through the template's escaping, or lies in a JSON block
whose signs cannot end it. The page's policy lets no script run but those it was written with, and
loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from jinja2 import Environment
from markupsafe import Markup

from sidtune.reporting.charts import Drawing

TEMPLATE, STYLE, SCRIPT = "page.html", "page.css", "page.js"


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    facts: list[tuple[str, str]]
    title: str = ""
    kind: Literal["facts"] = "facts"


# How many columns of the page a block takes: one, two, or all.
Width = Literal["narrow", "double", "wide"]
# What is shown, and what stands beneath it in small print.
Cell = str | tuple[str, str]


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first column is text, the others are numbers.

    Args:
        folded: opened by a click on its title.
    """

    head: list[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    width: Width = "wide"
    folded: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Chart:
    """A chart, what it shows, and the same as a table where that is worth having."""

    title: str
    drawing: Drawing
    note: str = ""
    table: Table | None = None
    width: Width = "narrow"
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Item:
    """An item of a list."""

    title: str
    id: str
    mark: str = ""


@dataclass(frozen=True)
class Card:
    """One user's history, the target, and the list."""

    head: str
    verdict: Literal["first", "near", "missed"]
    history: list[Item]
    earlier: int
    target: Item
    items: list[Item]


@dataclass(frozen=True)
class Cards:
    """Several of them."""

    cards: list[Card]
    kind: Literal["cards"] = "cards"


Block = Facts | Table | Chart | Cards


@dataclass(frozen=True)
class Section:
    """A part of the page, `name` being its anchor."""

    name: str
    title: str
    intro: str = ""
    blocks: list[Block] = field(default_factory=list)


def render(
    title: str, subtitle: str, tiles: Sequence[tuple[str, str, str]], sections: Sequence[Section]
) -> str:
    """The page as text.

    Args:
        tiles: figures at its top: name, value, and what else to say.
    """
    specs: dict[str, Any] = {}
    for section in sections:
        for number, block in enumerate(section.blocks, start=1):
            if isinstance(block, Chart):
                specs[f"{section.name}-{number}"] = block.drawing.spec
    library, script = chart_library(), _text(SCRIPT)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _text(TEMPLATE)
    )
    return template.render(
        title=title,
        subtitle=subtitle,
        tiles=tiles,
        sections=sections,
        style=Markup(_text(STYLE)),
        specs=Markup(_inert(specs)),
        library=Markup(library),
        script=Markup(script),
        hashes=[_hash(library), _hash(script)],
    )


@cache
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that may stand in a page."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Inside a script, only these could end it.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _inert(value: Any) -> str:
    """JSON in which no sign means anything to HTML."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _text(name: str) -> str:
    return files("sidtune.reporting").joinpath(name).read_text(encoding="utf-8")
