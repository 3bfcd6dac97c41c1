"""Initial embedding rows of new tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sidtune.base.ragged import Ragged, row_of

# Noise, as a share of the known rows' standard deviation: enough to separate tokens of the same
# items, little enough to keep their meaning.
NOISE_SHARE = 0.1
# Bounds memory: mean title rows are computed for so many items at a time.
ITEMS_AT_ONCE = 4096


@dataclass(frozen=True)
class ItemTexts:
    """Titles and SIDs of the items, as token ids.

    Args:
        titles: token ids of each item's title; empty where there is none.
        sids: SID token ids of each item.
    """

    titles: Ragged
    sids: Ragged

    def placed(self, known: NDArray[np.int64], new: NDArray[np.int64]) -> ItemTexts:
        """Token ids replaced by indices: of title tokens into `known`, of SID tokens into `new`
        (both ascending); others are left out.
        """
        return ItemTexts(_placed(self.titles, known), _placed(self.sids, new))


def mean_rows(known: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows drawn from a normal distribution with the known rows' mean and standard deviation per
    dimension.

    Rows that start closer together need most of a short training to separate.

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
    """For each token, the mean over its items of their mean title row, plus noise of a tenth of the
    known rows' standard deviation.

    Means of many rows have small norms, so each is scaled to the known rows' median norm. A token
    without a title starts as in `mean_rows`.

    Args:
        known, count, generator: as in `mean_rows`.
        texts: titles as indices into `known`, SIDs as indices into the new rows.

    Returns:
        `(count, hidden)`, float32.
    """
    rows = known.float()
    sums, items = _title_sums(rows, count, texts)
    # The sum has the same direction as the mean.
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
        # An item counts once, however often its SID contains the token.
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
