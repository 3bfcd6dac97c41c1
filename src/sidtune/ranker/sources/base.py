"""What a source of the ranker is, and what it is fitted on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged, repeat
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Rows
from sidtune.ranker.pairs import Asked, Floats, Pairs

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Known:
    """What sources are fitted on; nothing of it may hold an event that is held out.

    Args:
        catalogue: the items, n of them, with their SIDs.
        train: rows that everything is counted on.
        valid: rows that settings are chosen on; none where there are none.
        users: `(n,)`, training users of each item.
        texts: vectors of the items' texts `(n, d)`, rows of length 1 or 0; None without texts.
        newest: the model's log-probability that an item is a user's newest, `(n,)`, with nothing
            known of the user; None where the model cannot tell.
    """

    catalogue: Catalogue
    train: Rows
    valid: Rows | None
    users: NDArray[np.int64]
    texts: Floats | None = None
    newest: Floats | None = None


class Source(ABC):
    """A source of candidates and of what is known about them.

    `columns` names its features and says what each is; `mixes` says whether it has shares, for data
    with too few rows to learn from.
    """

    columns: ClassVar[Mapping[str, str]]
    mixes: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fit(cls, known: Known) -> Self | None:
        """Count; None where there is nothing to count."""

    def recount(self, known: Known) -> Self | None:
        """Count again, with the settings that were chosen before."""
        return type(self).fit(known)

    @classmethod
    @abstractmethod
    def load(cls, tensors: Tensors) -> Self:
        """What `tensors` gave."""

    @abstractmethod
    def tensors(self) -> Tensors:
        """Everything that was counted, by name."""

    @abstractmethod
    def features(self, asked: Asked, pairs: Pairs) -> Floats:
        """What the source knows of each pair, `(pairs, columns)`; NaN where it knows nothing."""

    def candidates(self, asked: Asked) -> Ragged:
        """Items worth looking at for each row; by default none."""
        return repeat([], len(asked))

    @staticmethod
    def share(features: Floats) -> Floats:
        """Weights of pairs, `(pairs,)`, not below 0, from the source's features; those of a row are
        scaled to sum to 1 before sources are mixed.
        """
        raise NotImplementedError
