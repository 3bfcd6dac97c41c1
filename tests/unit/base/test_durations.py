"""Durations in words."""

from __future__ import annotations

import pytest

from sidtune.base.durations import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "5 seconds"),
        (38, "40 seconds"),
        (58, "1 minute"),
        (89, "1 minute"),
        (200, "3 minutes"),
        (6_000, "2 hours"),
        (200_000, "2 days"),
    ],
)
def test_a_duration_has_the_unit_that_suits(seconds: float, words: str) -> None:
    assert duration(seconds) == words
