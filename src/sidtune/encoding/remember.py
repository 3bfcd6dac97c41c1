"""Caches small results that need a pass over all rows, next to the encoded tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidtune.base.hashing import digest
from sidtune.encoding.corpus import unused_path, using_cache


def remembered(
    name: str, fingerprint: dict[str, Any], cache_dir: Path, compute: Callable[[], Any]
) -> Any:
    """Load a JSON value from the cache, or compute it and add it to the cache.

    Args:
        name: name of the value.
        fingerprint: everything the value depends on; its hash names the cache entry.
        cache_dir: folder of all entries.
        compute: called only if there is no valid entry.
    """
    path = cache_dir / f"{name}-{digest(fingerprint)[:32]}.json"
    with using_cache(cache_dir):
        found = _read(path)
    if found:
        return found["value"]
    value = compute()
    entry = {"sha256": digest(value), "value": value, "fingerprint": fingerprint}
    with using_cache(cache_dir):
        return _publish(path, entry)["value"]


def _read(path: Path) -> dict[str, Any] | None:
    """A valid entry; None if there is none or it is damaged."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return entry if entry["sha256"] == digest(entry["value"]) else None
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _publish(path: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Write to a temporary file and rename it, so that entries are always complete; keep a valid
    existing entry.
    """
    aside = unused_path(path.parent)
    try:
        aside.write_text(json.dumps(entry), encoding="utf-8")
        theirs = _read(path)
        if theirs is None:
            os.replace(aside, path)
        return theirs or entry
    finally:
        aside.unlink(missing_ok=True)
