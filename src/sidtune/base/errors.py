"""Exceptions that are shown without a traceback."""

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice

from sidtune.base.keys import named

# Whatever a file holds, a message about it can be read.
LONGEST_MESSAGE = 3_000
MOST_WORDS = 1_000
SHOWN_NAMES = 3
# A name that differs by more typing slips than this, or than a quarter of its letters, is another
# name.
MOST_SLIPS = 2


class UserError(Exception):
    """A mistake in the user's input; the command line shows it without a traceback.

    Args:
        message: what was found and where (file, row, column, key).
        hint: what to do next.
    """

    STATUS = 2

    def __init__(self, message: str, hint: str) -> None:
        message, hint = named(message), named(hint)
        # Both, since an error is pickled by its arguments on its way to other processes.
        super().__init__(message, hint)
        left = len(message) - LONGEST_MESSAGE
        self.message = (
            message if left <= 0 else f"{message[:LONGEST_MESSAGE]} … ({left:,} more characters)"
        )
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class OneProcessError(UserError):
    """An error known only to this process, which therefore prints it whatever its rank."""


class PeerLost(OneProcessError):
    """Another process of the run has ended; every remaining process reports it, since the first may
    have ended.
    """

    STATUS = 1


class Interrupted(Exception):
    """A run was stopped by a signal, after finishing a step and saving a checkpoint."""

    # EX_TEMPFAIL of sysexits.h: try again.
    STATUS = 75


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:SHOWN_NAMES]) + (
        f" and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the known word of the nearest spelling, or nothing where none is a
    few slips away.
    """
    spelled: dict[str, str] = {}
    for name in islice(known, MOST_WORDS):
        spelled.setdefault(name.casefold(), name)
    folded = word.casefold()
    # These share most of their letters, which is cheap to see, but so do "history" and
    # "history_titles".
    alike = difflib.get_close_matches(folded, spelled, 10)
    slips = {
        other: _slips(folded, other)
        for other in alike
        if abs(len(folded) - len(other)) <= MOST_SLIPS
    }
    near = [
        other for other, count in slips.items() if count <= max(1, min(MOST_SLIPS, len(other) // 4))
    ]
    return f"; did you mean {spelled[min(near, key=slips.__getitem__)]}?" if near else ""


def _slips(word: str, other: str) -> int:
    """Letters left out, put in, exchanged for another, or swapped with their neighbour (optimal
    string alignment).
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(word, start=1):
        row = [i]
        for j, wanted in enumerate(other, start=1):
            cost = min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
