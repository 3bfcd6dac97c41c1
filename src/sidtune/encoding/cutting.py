"""Shortens examples that are too long by dropping as few of the oldest history items as
possible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import place_of
from sidtune.encoding.frame import FramedTemplate
from sidtune.tasks.base import Column, Items, Part

if TYPE_CHECKING:
    from sidtune.encoding.encoder import Encoder


def fit(
    encoder: Encoder, part: Part, template: FramedTemplate
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How many of the oldest history items each example must lose, and whether it then fits, both
    `(n,)`.

    At least one history item is always kept.
    """
    drop = np.zeros(len(part), np.int64)
    fits = np.ones(len(part), bool)
    pending = np.arange(len(part))
    while len(pending):
        current = part.take(pending).drop_oldest(drop[pending])
        prompt, response = encoder.pieces(current, template)
        lengths = np.stack([piece.lengths for piece in (*prompt, *response)])
        excess = lengths.sum(axis=0) - encoder.cutoff_len
        hopeless = (excess > 0) & (current.history_lengths <= 1)
        fits[pending[hopeless]] = False
        more = np.flatnonzero((excess > 0) & ~hopeless)
        if len(more):
            left = current.take(more)
            unpriced = _formatted_list_tokens(left, template, lengths[:, more])
            needed = _items_worth(encoder, left, template, excess[more] - unpriced)
            drop[pending[more]] += np.minimum(needed, left.history_lengths - 1)
        pending = pending[more]
    return drop, fits


def _formatted_list_tokens(
    part: Part, template: FramedTemplate, lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number of tokens of each example's segments that contain a list together with other text,
    `(n,)`.

    Such a segment is tokenised as a whole, so the number of tokens of a single item is not defined.

    Args:
        lengths: number of tokens of BOS, the segments and EOS, as returned by `Encoder.pieces`,
            `(pieces, n)`.
    """
    segments = [None, *template.prompt, *template.response, None]
    whole = [
        segment is not None
        and segment.slot is None
        and any(_is_list(part.columns[name]) for name in segment.names)
        for segment in segments
    ]
    total: NDArray[np.int64] = lengths[whole].sum(axis=0)
    return total


def _items_worth(
    encoder: Encoder, part: Part, template: FramedTemplate, tokens: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The smallest number of oldest items, at least one, whose removal saves this many tokens,
    `(n,)`.

    All lists that are written item by item count, once per occurrence. If removing all items does
    not save enough, the result is the length of the list.
    """
    lists = next(column.positions for column in part.columns.values() if _is_list(column))
    place, saved = place_of(lists), np.zeros(len(lists.values), np.int64)
    segments = [*template.prompt, *template.response]
    for segment, where in zip(segments, encoder.places(part, template), strict=True):
        column = part.columns[segment.slot] if segment.slot else None
        if _is_list(column):
            between = len(encoder.separating(template.separator, column.field))
            saved += _saved(encoder, column, between, encoder.opens(where), part.newest_first)
    enough = (place > 0) & (saved >= np.repeat(tokens, lists.lengths))
    fewest = np.where(enough, place, np.repeat(lists.lengths, lists.lengths))
    worth: NDArray[np.int64] = np.minimum.reduceat(fewest, lists.offsets[:-1])
    return worth


def _saved(
    encoder: Encoder, column: Items, between: int, opens: bool, newest_first: bool
) -> NDArray[np.int64]:
    """Tokens saved by dropping the k oldest items of a list with their separators, for every k
    below its length.

    Args:
        between: number of tokens of a separator.
        opens: whether the list starts a text, so that its first item is tokenised as the start of a
            text.

    Returns:
        `(items,)`: the value at position k of a list is for k items.
    """
    items, place = column.positions, place_of(column.positions)
    inner = encoder.item_tokens(column.field, False).lengths[items.values]
    total: NDArray[np.int64] = np.append(0, np.cumsum(inner + between))
    if newest_first:
        ends = np.repeat(items.offsets[1:], items.lengths)
        newest: NDArray[np.int64] = total[ends] - total[ends - place]
        return newest
    starts = np.repeat(items.offsets[:-1], items.lengths)
    # The first item is tokenised as the start of the list, and so is the item that replaces it.
    more = encoder.item_tokens(column.field, opens).lengths[items.values] - inner
    oldest: NDArray[np.int64] = total[starts + place] - total[starts] + more[starts] - more
    return oldest


def _is_list(column: Column | None) -> TypeGuard[Items]:
    return isinstance(column, Items) and column.many
