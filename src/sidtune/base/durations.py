"""How long something takes, in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """In the unit that suits, such as `40 seconds` or `3 hours`."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    # Nobody needs to know single seconds.
    fives = max(1, round(seconds / 5)) * 5
    return f"{fives} seconds" if fives < 60 else "1 minute"
