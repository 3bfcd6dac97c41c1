"""Durations in words."""

from __future__ import annotations

import pytest

from sidtune.base.durations import measured_duration, rough_duration


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
def test_a_rough_duration_has_the_unit_that_suits(seconds: float, words: str) -> None:
    assert rough_duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (38.4, "38 s"),
        (89.4, "89 s"),
        (200, "3 min"),
        (5_300, "88 min"),
        (9_400, "2.6 h"),
    ],
)
def test_a_measured_duration_is_not_rounded_further(seconds: float, words: str) -> None:
    assert measured_duration(seconds) == words
