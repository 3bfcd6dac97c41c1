"""Terms of a text in any language: words and pairs of words, and characters where words have no
blanks between them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Scripts that put no blanks between words: Chinese characters, kana, Thai, Lao, Khmer, Burmese.
# Korean has blanks.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
RUN = re.compile(rf"(?P<unspaced>[{UNSPACED}]+)|[^\W{UNSPACED}]+")
# Characters of a term, where characters are counted: most Chinese words have one or two.
LONGEST_TERM = 3


def terms(text: str) -> Iterator[str]:
    """The terms of a text, as often as they occur; pairs do not go beyond a line."""
    for line in unicodedata.normalize("NFKC", text).lower().split("\n"):
        before = ""
        for run in RUN.finditer(line):
            if run["unspaced"]:
                yield from _characters(run.group())
                before = ""
                continue
            word = run.group()
            yield word
            if before:
                yield f"{before} {word}"
            before = word


def _characters(run: str) -> Iterator[str]:
    for length in range(1, LONGEST_TERM + 1):
        for start in range(len(run) - length + 1):
            yield run[start : start + length]
