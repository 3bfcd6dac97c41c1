"""Whole sequences of users, put together from the rows of their growing histories."""

from __future__ import annotations

import numpy as np

from sidtune.data.rows import Rows
from sidtune.ragged import Ragged


def user_sequences(rows: Rows) -> Ragged:
    """Each user's items, oldest first; more than one sequence where rows of a user do not follow from one another.

    The rows of a user are taken by length of history, then as they stand. One extends the sequence so far when its
    history ends that sequence (histories are often cut to the newest items), or when it begins with it (rows may be
    missing); otherwise it begins a new sequence.
    """
    users = rows.users.dictionary_encode().indices.to_numpy()
    order = np.lexsort((rows.history.lengths, users))
    sequences: list[list[int]] = []
    current = None
    for row in order.tolist():
        history, target = rows.history[row].tolist(), int(rows.target[row])
        joined = _joined(sequences[-1], history) if users[row] == current else None
        if joined is None:
            sequences.append([*history, target])
        else:
            sequences[-1] = joined
            joined.append(target)
        current = users[row]
    return Ragged.from_lists(sequences)


def _joined(sequence: list[int], history: list[int]) -> list[int] | None:
    """The sequence up to the end of the history; None where the one does not follow from the other."""
    if sequence[-len(history) :] == history:
        return sequence
    return history if history[: len(sequence)] == sequence else None
