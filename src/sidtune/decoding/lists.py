"""The best SIDs for any number of histories, distributed over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.base.terminal import progress
from sidtune.config.search import RankOptions
from sidtune.decoding.answers import Answers
from sidtune.decoding.decoder import Decoder
from sidtune.decoding.prompts import Prompts
from sidtune.decoding.reverse import Reverse
from sidtune.decoding.search import Search
from sidtune.model.sharding.lockstep import lockstep

# Number of histories encoded at once.
ROWS_AT_ONCE = 65_536
# Number of SIDs read backwards at once: those of different users share tokens.
SIDS_AT_ONCE = 4_096


@dataclass(frozen=True)
class Lists:
    """Numbers of SIDs, best first, padded with -1, and their scores, minus infinity where there is
    none; both `(rows, beams)`.

    `too_long` are the rows whose prompt exceeds `cutoff_len`; their lists are empty.
    """

    sids: NDArray[np.int64]
    scores: NDArray[np.float32]
    too_long: NDArray[np.int64]


def rank_histories(
    decoder: Decoder[Any],
    prompts: Prompts,
    answers: Answers,
    history: Ragged,
    options: RankOptions,
    *,
    together: bool = False,
    bar: bool = True,
) -> Lists:
    """The best SIDs for every history.

    Args:
        history: n lists of catalogue positions, oldest first, none of them empty.
        together: all processes of the group ask the same: each searches for its share of the
            batches, and all of them get all lists. A batch is the same whoever searches it, so the
            lists are too.
        bar: draw a progress bar.

    Raises:
        UserError: if the model's outputs are NaN.
    """
    search = Search(
        answers.trie.to(decoder.device), options.width, options.normalize, options.max_tokens
    )
    shared = together and dist.is_initialized()
    chunks = [
        _rank_chunk(
            decoder,
            prompts,
            answers,
            search,
            history.take(rows),
            options.exclude_history,
            shared,
            bar,
        )
        for rows in np.split(
            np.arange(len(history)), range(ROWS_AT_ONCE, len(history), ROWS_AT_ONCE)
        )
    ]
    return Lists(
        np.concatenate([chunk.sids for chunk in chunks]),
        np.concatenate([chunk.scores for chunk in chunks]),
        np.concatenate(
            [chunk.too_long + number * ROWS_AT_ONCE for number, chunk in enumerate(chunks)]
        ),
    )


def by_both_directions(
    lists: Lists, reverse: Reverse, answers: Answers, history: Ragged, *, together: bool = False
) -> Lists:
    """Lists ordered by both directions: what the history's latest items say of each SID
    (`Reverse.leading_to`) is added to its score.

    Args:
        together: as in `rank_histories`.
    """
    shared = together and dist.is_initialized()
    rows, beams = lists.sids.shape
    there = lists.sids >= 0
    items = Ragged.from_lengths(answers.first_items[lists.sids[there]], there.sum(axis=1))
    added = np.zeros((rows, beams), np.float32)
    size = max(1, SIDS_AT_ONCE // beams)
    chunks = [np.arange(start, min(start + size, rows)) for start in range(0, rows, size)]
    share = _own(chunks, shared)
    for chunk in progress(share, "reading backwards", sum(map(len, share)), len):
        found = np.zeros((len(chunk), beams), np.float32)
        found[there[chunk]] = reverse.leading_to(items.take(chunk), history.take(chunk))
        added[chunk] = found
    if shared:
        summed = torch.from_numpy(added).to(reverse.device)
        dist.all_reduce(summed)
        added = summed.cpu().numpy()
    scores = lists.scores + added
    order = np.argsort(-scores, axis=1, kind="stable")
    return Lists(
        np.take_along_axis(lists.sids, order, axis=1),
        np.take_along_axis(scores, order, axis=1),
        lists.too_long,
    )


def _rank_chunk(
    decoder: Decoder[Any],
    prompts: Prompts,
    answers: Answers,
    search: Search,
    history: Ragged,
    exclude_history: bool,
    shared: bool,
    bar: bool,
) -> Lists:
    asked, rows = prompts.encode(history)
    exhausted = answers.exhausted(history).take(rows) if exclude_history else None
    # One more than the number of a SID, so that what other processes find can be added.
    sids = torch.zeros(len(history), search.beams, dtype=torch.long, device=decoder.device)
    scores = torch.zeros(len(history), search.beams, device=decoder.device)
    share = _own(search.batches(decoder, asked.lengths), shared)
    with lockstep(decoder.head.model):
        for batch in progress(share, "ranking", sum(map(len, share)), len) if bar else share:
            found, their_scores = search.run(
                decoder, asked.take(batch), exhausted and exhausted.take(batch)
            )
            place = torch.from_numpy(rows[batch]).to(decoder.device)
            sids[place, : found.shape[1]] = found + 1
            scores[place, : found.shape[1]] = their_scores
    if shared:
        dist.all_reduce(sids)
        dist.all_reduce(scores)
    numbers, summed = (sids - 1).cpu().numpy(), scores.cpu().numpy()
    if np.isnan(summed).any():
        raise UserError(
            "the model's outputs are NaN", "Its training diverged; use an earlier checkpoint."
        )
    too_long = np.setdiff1d(np.arange(len(history)), rows)
    return Lists(numbers, np.where(numbers >= 0, summed, -np.inf).astype(np.float32), too_long)


def _own(batches: list[NDArray[np.int64]], shared: bool) -> list[NDArray[np.int64]]:
    """The batches that this process works on."""
    return batches[dist.get_rank() :: dist.get_world_size()] if shared else batches
