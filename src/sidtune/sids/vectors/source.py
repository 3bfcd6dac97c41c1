"""What vectors are made from, and what a kind of vectors is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsConfig
from sidtune.data.rows import Rows
from sidtune.sids.items import Items
from sidtune.sids.kmeans import Floats

INSTALL = "pip install 'sidtune[sids]'"
# The module with the randomised singular value decomposition (Halko et al., 2011).
SVD = "utils.extmath"
SHORTEST, LARGEST = 1e-12, 1e15


def no_rows() -> Rows:
    """Stands for rows where a kind of vectors reads none, such as texts."""
    raise AssertionError("these vectors are made without rows")


@dataclass(frozen=True)
class Source:
    """What vectors are made from.

    Args:
        items: the items, n of them.
        options: the section `sids`.
        rows: reads the training rows, against the items in their order; raises `UserError` where
            none are configured.
    """

    items: Items
    options: SidsConfig
    rows: Callable[[], Rows] = no_rows


@dataclass(frozen=True)
class State:
    """What a kind of vectors learned, for items that come later.

    Args:
        tensors: arrays by name.
        terms: the vocabulary of texts; empty for other kinds.
    """

    tensors: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    terms: list[str] = field(default_factory=list)


class Kind(Protocol):
    """A kind of vectors."""

    def fit(self, source: Source) -> tuple[Floats, State]:
        """Vectors `(n, d)` of the items, and what was learned."""
        ...

    def place(self, items: Items, state: State, options: SidsConfig) -> Floats | None:
        """Vectors `(m, d)` of other items; None where this kind knows nothing of items that were
        not fitted.
        """
        ...


def import_sklearn(module: str) -> Any:
    """A module of scikit-learn, by its name within it.

    Raises:
        UserError: where it is not installed.
    """
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise UserError(
            f"vectors of items need scikit-learn, which is not installed ({error})", INSTALL
        ) from None


def need_finite(vectors: Floats, items: Items, whose: str, remedy: str) -> None:
    """Refuse vectors that nothing can be computed from.

    Args:
        whose: where they come from, for the message.

    Raises:
        UserError: for NaN, infinities, and numbers whose sums of squares may be infinite; it says
            how many items have such vectors, and names the first.
    """
    bad = ~(np.abs(vectors) < LARGEST).all(1)
    if bad.any():
        raise UserError(
            f"{whose}: {int(bad.sum()):,} of {len(vectors):,} vectors hold NaN, an infinity or a"
            f" number beyond 1e15 (first that of item {items.ids[int(bad.argmax())]})",
            remedy,
        )


def unit(vectors: Floats) -> Floats:
    """Rows of length 1; rows of length 0 stay."""
    lengths = np.sqrt((vectors * vectors).sum(1, keepdims=True))
    found: Floats = (vectors / np.maximum(lengths, np.float32(SHORTEST))).astype(np.float32)
    return found
