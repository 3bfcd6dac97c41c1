"""The lists that are evaluated: of the model alone, and of the ranker beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged
from sidtune.config.search import RankOptions
from sidtune.data.rows import Rows
from sidtune.decoding.lists import Lists
from sidtune.decoding.recommender import Recommender
from sidtune.evaluation.reach import REACH_NAMES
from sidtune.files.ids import as_texts
from sidtune.metrics.ranks import Ranking


@dataclass(frozen=True)
class Listed:
    """The rows, with their numbers in the file, and the model's lists for them: as they were found,
    and in the model's own order.
    """

    recommender: Recommender
    rows: Rows
    chosen: NDArray[np.int64]
    lists: Lists
    own: Lists
    options: RankOptions


class ItemLists(NamedTuple):
    """Lists of items with their scores, and where the targets stand in them."""

    ranking: Ranking
    items: Ragged
    scores: NDArray[np.float32]


def model_lists(listed: Listed) -> dict[str, ItemLists]:
    """By name: the ranker's lists, where there is a ranker, the model's own, and the ranker's as if
    there were no model.
    """
    recommender, rows, options = listed.recommender, listed.rows, listed.options
    answers, hidden = recommender.answers, rows.history if options.exclude_history else None
    asked = recommender.asked(rows.history, listed.lists, options)
    own = asked
    if listed.own is not listed.lists:
        own = recommender.asked(rows.history, listed.own, options)
    assert own.beams
    model = ItemLists(answers.rank(listed.own.sids, rows.target, hidden), *own.beams)
    if recommender.ranker is None:
        return {"model": model}
    found = {
        name: ItemLists(answers.rank_items(items, rows.target, options.width), items, scores)
        for name, (items, scores) in recommender.ranker.rank_each(asked, options.width).items()
    }
    return {"ranker": found.pop("ranker"), "model": model, **found}


def predictions(listed: Listed, lists: ItemLists, reach: NDArray[np.int64] | None) -> pa.Table:
    """A row each: who, what was wanted, where it stands, how it can be reached, and the list with
    its scores.
    """
    rows = listed.rows
    ids = pa.array(listed.recommender.bundle.catalogue.ids, pa.string())
    offsets = pa.array(lists.items.offsets.astype(np.int32))
    columns = {
        "row": listed.chosen + 1,
        "user_id": as_texts(rows.users),
        "target": ids.take(pa.array(rows.target)),
        "sid_rank": lists.ranking.sid_ranks,
        "item_rank": lists.ranking.item_ranks,
        "items": pa.ListArray.from_arrays(offsets, ids.take(pa.array(lists.items.values))),
        "scores": pa.ListArray.from_arrays(offsets, pa.array(lists.scores)),
    }
    if reach is not None:
        columns["reach"] = pa.array(REACH_NAMES).take(pa.array(reach))
    return pa.table(columns)
