"""Keys of the configuration in messages, where a command reads another section than usual."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_names: ContextVar[Mapping[str, str] | None] = ContextVar("names", default=None)


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Let warnings and errors that are made meanwhile name other keys.

    Args:
        names: what to say, by what the code says; a key that ends with a dot stands for all that
            begin with it.
    """
    before = _names.set(names)
    try:
        yield
    finally:
        _names.reset(before)


def named(text: str) -> str:
    """A message with the keys that the running command reads."""
    names = _names.get()
    if not names:
        return text
    ways = (re.escape(key) + (r"(?=\w)" if key.endswith(".") else r"(?!\w)") for key in names)
    return re.sub(rf"(?<![\w./])(?:{'|'.join(ways)})", lambda found: names[found[0]], text)
