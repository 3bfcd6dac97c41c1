"""The exceptions that are shown without a traceback: the user can mend this, or wanted it."""

import difflib
from collections.abc import Iterable
from itertools import islice

# Whatever a file holds, a message about it can be read.
LONGEST_MESSAGE = 3_000
MOST_WORDS = 1_000


class UserError(Exception):
    """Something the user gave is wrong; the command line shows it without a traceback.

    Args:
        message: what was found and where (file, row, column, key).
        hint: what to do next; empty where the message already says it.
    """

    STATUS = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        left = len(message) - LONGEST_MESSAGE
        self.message = message if left <= 0 else f"{message[:LONGEST_MESSAGE]} … ({left:,} more characters)"
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class OneProcessError(UserError):
    """A fault that only this process knows of: shown whatever its rank, since the others cannot say it."""


class PeerLost(OneProcessError):
    """Another process of the run is gone; each that is left says so, since the first may be the one that is gone."""

    STATUS = 1


class Interrupted(Exception):
    """A run was asked to stop and did so after a step, with a checkpoint."""

    # EX_TEMPFAIL of sysexits.h: try again.
    STATUS = 75


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of the known words, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(islice(known, MOST_WORDS)), 1)
    return f"; did you mean {near[0]}?" if near else ""
