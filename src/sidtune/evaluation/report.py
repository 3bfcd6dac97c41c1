"""The results of an evaluation as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidtune.data.rows import Rows
from sidtune.evaluation.reach import REACH_NAMES
from sidtune.metrics.metrics import (
    GROUP_CUTOFF,
    Estimate,
    Group,
    breakdown,
    coverage,
    history_groups,
    popularity_groups,
    repeated,
    summarise,
)
from sidtune.metrics.ranks import Ranking
from sidtune.metrics.repeats import in_history
from sidtune.runs.files import Count

# Longer histories are counted as of this length.
LONGEST_COUNTED = 200
# The group of each row, `(rows,)`, and the groups' names.
Grouping = tuple[NDArray[np.int64], tuple[str, ...]]


@dataclass(frozen=True)
class Summary:
    """The metrics of one ranker.

    Args:
        sid, item: metrics by name; a hit is the right SID, or the right item.
        coverage: share of the items that stand in any of the first `list_length` places.
        repeated: share of those places that hold an item of the user's own history.
        by_history, by_popularity: item-level, of rows by the length of history, and by the target's
            training users.
        by_reach: by how the target can be reached from training rows; none where these are unknown.
    """

    sid: dict[str, Estimate]
    item: dict[str, Estimate]
    coverage: float
    repeated: float
    by_history: list[Group]
    by_popularity: list[Group]
    by_reach: list[Group]


@dataclass(frozen=True)
class Level:
    """How the model's SIDs agree with the first tokens of the target's SID, its own order of SIDs
    being asked.

    Args:
        tokens: how many; every SID of a list agrees in none.
        first: share of rows whose first SID agrees.
        among: share of rows where one of the first ten SIDs does.
        listed: share of rows where any SID of the list does.
        mass: probability of the list's SIDs that do, mean of the rows.
    """

    tokens: int
    first: Estimate
    among: Estimate
    listed: Estimate
    mass: float


@dataclass(frozen=True)
class Example:
    """One row and its list, items by their ids.

    Args:
        row: its number in the file, from 1.
        history: its latest items, oldest first.
        earlier: number of items before these.
        rank: place of the target among the items, from 1; 0 where it is not in the list.
        items: the first items of the list, best first.
    """

    row: int
    user: str
    history: list[str]
    earlier: int
    target: str
    rank: int
    items: list[str]


@dataclass(frozen=True)
class Details:
    """What a report shows besides metrics.

    Args:
        histories: number of rows by length of history, from 0 to `LONGEST_COUNTED`, of the ranked
            rows and, where they are known, of the training rows.
        repeating: share of rows whose target stands in their history, of the validation rows, or of
            the training rows where no validation rows are known; None where neither are.
    """

    levels: list[Level]
    examples: list[Example]
    histories: dict[str, list[Count]]
    repeating: Estimate | None = None


@dataclass(frozen=True)
class Report:
    """The results of an evaluation.

    Args:
        settings: all settings that determine the results.
        rows: number of ranked rows.
        items: number of candidate items.
        too_long: number of rows whose prompt exceeds `cutoff_len`; they count as misses.
        excluded: number of rows whose target is excluded from the lists; they count as misses.
        colliding: share of targets that share their SID with another item.
        list_length: number of list positions used for coverage and repeats.
        rankers: the model first.
        details: what a report shows besides; None for rankers without a model.
    """

    settings: dict[str, Any]
    rows: int
    items: int
    too_long: int
    excluded: int
    colliding: float
    list_length: int
    rankers: dict[str, Summary]
    details: Details | None = None

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def make_report(
    settings: dict[str, Any],
    rows: Rows,
    sid_of: NDArray[np.int64],
    users: NDArray[np.int64],
    too_long: int,
    rankings: Mapping[str, Ranking],
    reach: NDArray[np.int64] | None = None,
) -> Report:
    """Put the figures together.

    Args:
        settings: as `Report` has them; `exclude_history` among them.
        rows: that were ranked.
        sid_of: `(items,)`, the number of each item's SID; -1 for items that may not be answered.
        users: `(items,)`, training users of each item.
        rankings: of every ranker, the model first.
        reach: `(rows,)`, as in `reached`.
    """
    depth = next(iter(rankings.values())).items.shape[1]
    groups: list[Grouping] = [
        history_groups(rows.history.lengths),
        popularity_groups(users[rows.target]),
        (np.full(len(rows.target), -1) if reach is None else reach, REACH_NAMES),
    ]
    answerable = sid_of >= 0
    sizes = np.bincount(sid_of[answerable])
    excluded = ~answerable[rows.target]
    if settings["exclude_history"]:
        excluded |= in_history(rows)
    return Report(
        settings=settings,
        rows=len(rows.target),
        items=int(answerable.sum()),
        too_long=too_long,
        excluded=int(excluded.sum()),
        colliding=float(
            (sizes[sid_of[rows.target]] > 1)[answerable[rows.target]].sum() / len(rows.target)
        ),
        list_length=min(GROUP_CUTOFF, depth),
        rankers={
            name: _summary(ranking, depth, rows, answerable, groups)
            for name, ranking in rankings.items()
        },
    )


def _summary(
    ranking: Ranking,
    depth: int,
    rows: Rows,
    answerable: NDArray[np.bool_],
    groups: Sequence[Grouping],
) -> Summary:
    lists = ranking.items[:, : min(GROUP_CUTOFF, depth)]
    by_history, by_popularity, by_reach = (
        breakdown(ranking.item_ranks, depth, *group) for group in groups
    )
    return Summary(
        sid=summarise(ranking.sid_ranks, depth),
        item=summarise(ranking.item_ranks, depth),
        coverage=coverage(lists, int(answerable.sum())),
        repeated=repeated(lists, rows.history),
        by_history=by_history,
        by_popularity=by_popularity,
        by_reach=by_reach,
    )
