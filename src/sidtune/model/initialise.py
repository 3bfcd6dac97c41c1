"""What the rows of new tokens start as."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sidtune.base.ragged import Ragged, row_of

# Of the known rows' spread: enough to tell tokens of the same items apart, little enough to leave
# them their meaning.
NOISE_SHARE = 0.1
# Bounds memory: one row for each of so many titles and their SID tokens.
ITEMS_AT_ONCE = 4096


@dataclass(frozen=True)
class ItemTexts:
    """What the items that carry a token are called.

    Args:
        titles: token ids of each item's title; empty where there is none.
        sids: SID token ids of each item.
    """

    titles: Ragged
    sids: Ragged

    def placed(self, known: NDArray[np.int64], new: NDArray[np.int64]) -> ItemTexts:
        """Ids as places: of title tokens among `known`, of SID tokens among `new` (both ascending);
        others left out.
        """
        return ItemTexts(_placed(self.titles, known), _placed(self.sids, new))


def mean_rows(known: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Drawn around the mean of the known rows, with their spread in each dimension, from a normal
    distribution.

    Rows that lie closer together take most of a short training to part.

    Args:
        known: `(tokens, hidden)`, the rows of the tokens that the base's tokenizer had.
        count: number of new rows.
        generator: on the CPU.

    Returns:
        `(count, hidden)`, float32.
    """
    rows = known.float()
    return rows.mean(0) + _spread(rows, count, generator)


def text_rows(known: Tensor, count: int, generator: torch.Generator, texts: ItemTexts) -> Tensor:
    """The mean over the items that carry a token of the mean of their title's rows, and a tenth of
    the spread as noise.

    Means of many rows are short: each is scaled to the median length of the known rows. A token
    without a title starts as in `mean_rows`.

    Args:
        known, count, generator: as in `mean_rows`.
        texts: titles as places among `known`, SIDs as places among the new rows.

    Returns:
        `(count, hidden)`, float32.
    """
    rows = known.float()
    sums, items = _title_sums(rows, count, texts)
    # The sum points where the mean does.
    scaled = rows.norm(dim=1).median() * F.normalize(sums, dim=1)
    spread = _spread(rows, count, generator)
    return torch.where((items > 0)[:, None], scaled + NOISE_SHARE * spread, rows.mean(0) + spread)


def _spread(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows.std(0, unbiased=False) * torch.randn(count, rows.shape[1], generator=generator)


def _title_sums(rows: Tensor, count: int, texts: ItemTexts) -> tuple[Tensor, Tensor]:
    """For each new token, the sum of its items' mean title rows `(count, hidden)` and their number
    `(count,)`.
    """
    sums, items = rows.new_zeros(count, rows.shape[1]), torch.zeros(count, dtype=torch.long)
    named = np.flatnonzero(texts.titles.lengths)
    for first in range(0, len(named), ITEMS_AT_ONCE):
        block = named[first : first + ITEMS_AT_ONCE]
        titles, sids = texts.titles.take(block), texts.sids.take(block)
        ids, offsets = torch.from_numpy(titles.values).long(), torch.from_numpy(titles.offsets[:-1])
        means = F.embedding_bag(ids, rows, offsets, mode="mean")
        # An item counts once, however often its SID holds the token.
        item, token = torch.from_numpy(
            np.stack(divmod(np.unique(row_of(sids) * count + sids.values), count))
        )
        sums.index_add_(0, token, means[item])
        items += torch.bincount(token, minlength=count)
    return sums, items


def _placed(lists: Ragged, ids: NDArray[np.int64]) -> Ragged:
    places = np.searchsorted(ids, lists.values)
    found = ids[np.minimum(places, len(ids) - 1)] == lists.values
    return Ragged(places.astype(np.int32), lists.offsets).keep(found)
