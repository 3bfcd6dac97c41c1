"""Small results that took reading every row, kept beside the encoded tasks."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidtune.encoding.corpus import digest, writing_cache


def remembered(name: str, fingerprint: dict[str, Any], cache_dir: Path, compute: Callable[[], Any]) -> Any:
    """A JSON value from the cache, or computed now and put there.

    Args:
        name: what it is.
        fingerprint: everything the value depends on; its hash names the cache entry.
        cache_dir: holds all entries.
        compute: called only when the cache has no sound entry.
    """
    path = cache_dir / f"{name}-{digest(fingerprint)[:32]}.json"
    try:
        entry = json.loads(path.read_text())
        if entry["sha256"] == digest(entry["value"]):
            return entry["value"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # not there yet, or damaged
    value = compute()
    _write(path, {"sha256": digest(value), "value": value, "fingerprint": fingerprint})
    return value


def _write(path: Path, entry: dict[str, Any]) -> None:
    """Aside, then renamed: an entry is whole or not there."""
    with writing_cache(path.parent):
        descriptor, aside = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
        try:
            with open(descriptor, "w") as file:
                json.dump(entry, file)
            os.replace(aside, path)
        finally:
            Path(aside).unlink(missing_ok=True)
