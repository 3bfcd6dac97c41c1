"""What a report shows of an evaluation besides metrics: SIDs token by token, and single rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged
from sidtune.data.catalogue import Catalogue, prefix_numbers
from sidtune.data.rows import Rows
from sidtune.decoding.answers import Answers
from sidtune.decoding.lists import Lists
from sidtune.evaluation.report import LONGEST_COUNTED, Example, Level
from sidtune.files.ids import as_texts
from sidtune.metrics.metrics import GROUP_CUTOFF, proportion
from sidtune.metrics.ranks import Ranking

EXAMPLES_SEED = 0
# Rows shown whose target is first, stands in the list's first places, and does not.
SHOWN_ROWS = (3, 3, 4)
SHOWN_HISTORY = 10


def agreement(
    answers: Answers, catalogue: Catalogue, lists: Lists, target: NDArray[np.integer]
) -> list[Level]:
    """The levels of the model's lists, from no token to all of the deepest SID.

    Args:
        target: `(rows,)` catalogue positions.
    """
    groups = prefix_numbers(catalogue.sids)
    of_sid = groups[answers.first_items]
    listed = lists.sids >= 0
    probability = np.where(listed, np.exp(lists.scores.astype(np.float64)), 0.0)
    levels = [_level(0, listed, probability)]
    for level in range(groups.shape[1]):
        own = groups[target, level][:, None]
        levels.append(_level(level + 1, listed & (of_sid[lists.sids, level] == own), probability))
    return levels


def examples(
    catalogue: Catalogue, rows: Rows, chosen: NDArray[np.int64], ranking: Ranking
) -> list[Example]:
    """Rows drawn by a fixed seed: some whose target is first, some where it stands in the first
    ten places, some where it does not.

    Args:
        chosen: `(rows,)`, each row's number in its file, from 0.
    """
    ranks = ranking.item_ranks
    near = (ranks > 0) & (ranks <= GROUP_CUTOFF)
    kinds = (ranks == 1, near & (ranks > 1), ~near)
    random = np.random.default_rng(EXAMPLES_SEED)
    drawn = [
        random.permutation(np.flatnonzero(kind))[:count]
        for kind, count in zip(kinds, SHOWN_ROWS, strict=True)
    ]
    users = as_texts(rows.users).to_pylist()
    found = []
    for row in np.concatenate(drawn).tolist():
        history, listed = rows.history[row].tolist(), ranking.items[row, :GROUP_CUTOFF].tolist()
        found.append(
            Example(
                row=int(chosen[row]) + 1,
                user=users[row],
                history=[catalogue.ids[item] for item in history[-SHOWN_HISTORY:]],
                earlier=max(0, len(history) - SHOWN_HISTORY),
                target=catalogue.ids[rows.target[row]],
                rank=int(ranks[row]),
                items=[catalogue.ids[item] for item in listed if item >= 0],
            )
        )
    return found


def history_lengths(histories: Mapping[str, Ragged]) -> dict[str, list[int]]:
    """Number of histories by length, as `Details` has them."""
    return {
        name: np.bincount(np.minimum(lists.lengths, LONGEST_COUNTED)).tolist()
        for name, lists in histories.items()
    }


def _level(tokens: int, agrees: NDArray[np.bool_], probability: NDArray[np.float64]) -> Level:
    first, among, listed = (
        proportion(np.asarray(agrees[:, :depth].any(axis=1), np.float64))
        for depth in (1, GROUP_CUTOFF, agrees.shape[1])
    )
    mass = float(np.where(agrees, probability, 0.0).sum(axis=1).mean())
    return Level(tokens, first, among, listed, mass)
