"""What encoding gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidtune.base.ragged import Ragged


@dataclass(frozen=True)
class Encoded:
    """Encoded examples of a part.

    Args:
        input_ids: n lists of token ids.
        label_spans: n lists of `start, end` pairs into `input_ids`.
        rows: `(n,)`, source rows of the examples that were kept.
        histories: `(n,)`, the key of each example's history and how it is written, or `NO_HISTORY`.
        truncated: number of examples that lost history items.
        dropped: number of examples that did not fit and were left out.
    """

    input_ids: Ragged
    label_spans: Ragged
    rows: NDArray[np.int64]
    histories: NDArray[np.int64]
    truncated: int
    dropped: int


@dataclass(frozen=True)
class Piece:
    """Some tokens of one example, for the preview."""

    ids: list[int]
    label: bool


@dataclass(frozen=True)
class Place:
    """What precedes a segment.

    Args:
        first: nothing precedes it: the segment starts the sequence.
        behind_token: an added token precedes it, such as a SID token.
        text: preceding text that would be tokenised together with the segment but is not part of
            it.
    """

    first: bool
    behind_token: bool
    text: str = ""
