"""Finds HTML left in texts collected from web pages."""

from __future__ import annotations

import re
from html.entities import html5

# Standard and obsolete HTML elements that occur in text.
ELEMENTS = (
    "a|abbr|acronym|address|b|bdi|bdo|big|blockquote|body|br|center|cite|code|dd|del|dfn|div|dl|dt|em|font|footer|form|"
    "h[1-6]|head|header|hr|html|i|iframe|img|ins|kbd|li|link|mark|meta|nobr|ol|p|pre|q|s|samp|script|section|small|span|"
    "strike|strong|style|sub|sup|table|tbody|td|tfoot|th|thead|title|tr|tt|u|ul|var|wbr"
)
TAG = rf"</?(?:{ELEMENTS})(?:\s[^<>]*)?/?>|<!--"
ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});"
HTML = re.compile(f"{TAG}|{ENTITY}", re.IGNORECASE)


def html_in(text: str) -> str | None:
    """The first tag, comment or entity in a text, such as `<b>` or `&amp;`; None if
    there is none.
    """
    for found in HTML.finditer(text):
        written = found.group()
        if not written.startswith("&") or is_entity(written):
            return written
    return None


def is_entity(written: str) -> bool:
    """Whether what looks like an entity is one, such as `&amp;` or `&#38;`."""
    return written[1] == "#" or written[1:] in html5
