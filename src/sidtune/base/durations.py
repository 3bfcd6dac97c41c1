"""How long something takes, or took, in words."""

from __future__ import annotations


def rough_duration(seconds: float) -> str:
    """What is foretold, in the unit that suits, such as `40 seconds` or `3 hours`."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    # Nobody needs to know single seconds.
    fives = max(1, round(seconds / 5)) * 5
    return f"{fives} seconds" if fives < 60 else "1 minute"


def measured_duration(seconds: float) -> str:
    """What was measured, such as `38 s`, `24 min` or `2.6 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
