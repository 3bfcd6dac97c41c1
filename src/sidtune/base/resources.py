"""Cores and memory that this process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# What a container may use, which Linux tells here.
GROUP = Path("/sys/fs/cgroup")
MEMORY_FILES = ("memory.max", "memory/memory.limit_in_bytes")


def cores(group: Path = GROUP) -> int:
    """CPU cores, of a container those that it may use; at least 1.

    Args:
        group: the control group's folder.
    """
    bound = getattr(os, "sched_getaffinity", None)
    found = len(bound(0)) if bound else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        # Rounded up; `max` stands for no quota, and is no number.
        return max(1, min(found, -(-int(quota) // int(period))))
    return found


def memory(group: Path = GROUP) -> int:
    """Bytes of main memory, of a container those that it may use; 0 where that is not known.

    Args:
        group: the control group's folder.
    """
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        found = 0
    for name in MEMORY_FILES:
        with suppress(OSError, ValueError):
            limit = int((group / name).read_text(encoding="utf-8"))
            return min(found, limit) if found else limit
    return max(found, 0)
