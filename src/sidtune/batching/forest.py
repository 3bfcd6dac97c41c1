"""Sequences as prefix trees: a shared prefix is stored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Forest:
    """Prefix trees in rows; the nodes of a row are numbered from 0 in preorder, so that a subtree
    is a range.

    Args:
        row: the row that each sequence lies in, `(sequences,)`, ascending.
        node: the node of each position of each sequence, `(sequences, longest)`; -1 past its end.
        tokens, depths, ends: `(rows, widest)` each, per node: its token, its position in its
            sequences, and the first node after its subtree; -1 where a row is shorter.
        widths: nodes of each row, `(rows,)`.
    """

    row: NDArray[np.int64]
    node: NDArray[np.int64]
    tokens: NDArray[np.int64]
    depths: NDArray[np.int64]
    ends: NDArray[np.int64]
    widths: NDArray[np.int64]


def lexicographic(sequences: Sequence[NDArray[np.int32]]) -> list[int]:
    """The order that puts sequences with a common prefix side by side."""
    # Big-endian bytes compare like the numbers do.
    keys = [sequence.astype(">u4").tobytes() for sequence in sequences]
    return sorted(range(len(keys)), key=keys.__getitem__)


def grow(sequences: Sequence[NDArray[np.int32]], token_cost: float, widest: int) -> Forest:
    """Build the trees of sequences in lexicographic order.

    A sequence joins the previous row if the tokens it shares with it save more than the attention
    of a longer row costs.

    Args:
        sequences: none of them empty.
        token_cost: cost of one token outside attention, in query-key pairs.
        widest: maximum nodes per row; a longer sequence gets a row of its own.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    table = np.full((len(sequences), int(lengths.max())), -1, np.int64)
    column = np.arange(table.shape[1])
    inside = column < lengths[:, None]
    table[inside] = np.concatenate(sequences)
    shared = _shared(table, lengths)
    opens = _row_starts(lengths, shared, token_cost, widest)
    shared[opens] = 0
    row = np.cumsum(opens) - 1

    new = inside & (column >= shared[:, None])
    number = np.cumsum(new).reshape(new.shape) - 1
    first = number[:, 0][opens]  # a row opens with a node of its own
    node = np.maximum.accumulate(np.where(new, number, -1), axis=0)
    added, before = new.sum(1), first[row][:, None]
    end = _ends(shared, np.cumsum(added), table.shape[1])

    width = np.diff(np.append(first, added.sum()))
    at = np.repeat(row, added), (number - before)[new]
    shape = (len(first), int(width.max()))
    tokens, depths, ends = (np.full(shape, -1, np.int64) for _ in range(3))
    tokens[at], depths[at] = table[new], np.broadcast_to(column, new.shape)[new]
    ends[at] = (end - before)[new]
    return Forest(row, np.where(inside, node - before, -1), tokens, depths, ends, width)


def _shared(table: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tokens each sequence shares with the one before it, `(sequences,)`."""
    same = np.cumprod(table[1:] == table[:-1], axis=1).sum(1)
    shared: NDArray[np.int64] = np.minimum(np.append(0, same), lengths)
    return shared


def _row_starts(
    lengths: NDArray[np.int64], shared: NDArray[np.int64], token_cost: float, widest: int
) -> NDArray[np.bool_]:
    """Whether each sequence starts a new row, `(sequences,)`."""
    opens = np.ones(len(lengths), bool)
    width = 0
    for index, (length, common) in enumerate(zip(lengths.tolist(), shared.tolist(), strict=True)):
        joined = width + length - common
        more_pairs = joined**2 - width**2 - length**2
        opens[index] = index == 0 or joined > widest or more_pairs > common * token_cost
        width = length if opens[index] else joined
    return opens


def _ends(shared: NDArray[np.int64], behind: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """The first node after the subtree of the node that each sequence adds in each column,
    `(sequences, width)`.

    Args:
        behind: the first node added after each sequence, `(sequences,)`.
    """
    # A subtree ends before the next sequence whose shared prefix does not reach the node.
    leaves = np.append(shared[1:], 0)[:, None] <= np.arange(width)
    ends = np.where(leaves, behind[:, None], behind[-1])
    reached: NDArray[np.int64] = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
    return reached
