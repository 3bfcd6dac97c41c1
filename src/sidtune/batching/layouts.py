"""How the examples of a step lie in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Example = tuple[NDArray[np.int32], NDArray[np.int32], int]

# A bucket is closed early where the next example is shorter than this share of the bucket's longest: on a step of
# 128 real examples that leaves under a tenth of padding, for a handful of forward passes more.
SHORTEST_SHARE = 0.75
PADDED_MULTIPLE = 8


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass sees.

    Args:
        input_ids: `(batch, length)`.
        attention_mask: `(batch, length)`, or None where causality alone keeps padding out.
        position_ids: `(batch, length)`, or None for 0, 1, 2, ….
        rows, columns: `(labels,)`, where the hidden state lies that predicts each label.
        labels: `(labels,)` token ids.
        tasks: `(labels,)` number of the task each label belongs to.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    position_ids: torch.Tensor | None
    rows: torch.Tensor
    columns: torch.Tensor
    labels: torch.Tensor
    tasks: torch.Tensor

    def to(self, device: torch.device) -> dict[str, torch.Tensor | None]:
        """The fields by name, moved."""
        return {
            name: None if value is None else value.to(device, non_blocking=True) for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Layout:
    """Groups the examples of one rank's share of a step and lays each group out.

    Args:
        name: `bucketed` or `padded`.
        limit: padded tokens of a micro-batch (`bucketed`; a longer example stands alone), or its examples (`padded`).
        pad_id: fills up; never attended to by a label.
    """

    name: Literal["bucketed", "padded"]
    limit: int
    pad_id: int

    def micro_batches(self, examples: Sequence[Example]) -> list[MicroBatch]:
        """Lay examples out; the sum of their losses does not depend on how."""
        groups = _GROUPINGS[self.name](np.array([len(ids) for ids, _, _ in examples], np.int64), self.limit)
        side: Literal["left", "right"] = "left" if self.name == "padded" else "right"
        multiple = PADDED_MULTIPLE if self.name == "padded" else 1
        return [_lay_out([examples[i] for i in group], self.pad_id, side, multiple) for group in groups]


def idle_micro_batch(example: Example, pad_id: int) -> MicroBatch:
    """A forward pass that counts for nothing, for a rank whose share of the step is empty: no label is kept."""
    ids, _, task = example
    return _lay_out([(ids[:2], np.zeros((0, 2), np.int32), task)], pad_id, "right", 1)


def _bucketed(lengths: NDArray[np.int64], max_tokens: int) -> list[list[int]]:
    """Longest first; a bucket holds at most `max_tokens` padded tokens and lengths of one kind."""
    groups: list[list[int]] = []
    longest = 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        if not groups or length < SHORTEST_SHARE * longest or (len(groups[-1]) + 1) * longest > max_tokens:
            groups.append([])
            longest = length
        groups[-1].append(index)
    return groups


def _in_order(lengths: NDArray[np.int64], micro_batch_size: int) -> list[list[int]]:
    n = len(lengths)
    return [list(range(start, min(start + micro_batch_size, n))) for start in range(0, n, micro_batch_size)]


_GROUPINGS: dict[str, Callable[[NDArray[np.int64], int], list[list[int]]]] = {
    "bucketed": _bucketed,
    "padded": _in_order,
}


def _lay_out(examples: Sequence[Example], pad_id: int, side: Literal["left", "right"], multiple: int) -> MicroBatch:
    lengths = np.array([len(ids) for ids, _, _ in examples])
    width = -(-int(lengths.max()) // multiple) * multiple
    starts = width - lengths if side == "left" else np.zeros_like(lengths)
    input_ids = np.full((len(examples), width), pad_id, np.int64)
    rows, columns, tasks = [], [], []
    for index, ((ids, spans, task), start) in enumerate(zip(examples, starts, strict=True)):
        input_ids[index, start : start + len(ids)] = ids
        labelled = np.concatenate([np.zeros(0, np.int64), *(np.arange(a, b) for a, b in spans.tolist())]) + start
        rows.append(np.full(len(labelled), index))
        columns.append(labelled)
        tasks.append(np.full(len(labelled), task))
    row, column = np.concatenate(rows), np.concatenate(columns).astype(np.int64)
    mask, positions = _left_padding(width, starts) if side == "left" else (None, None)
    return MicroBatch(
        torch.from_numpy(input_ids),
        mask,
        positions,
        torch.from_numpy(row),
        torch.from_numpy(column - 1),
        torch.from_numpy(input_ids[row, column]),
        torch.from_numpy(np.concatenate(tasks)),
    )


def _left_padding(width: int, starts: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask and positions `(batch, width)`; right padding needs neither, since no real token sees what follows it."""
    distance = np.arange(width)[None, :] - starts[:, None]
    return torch.from_numpy((distance >= 0).astype(np.int64)), torch.from_numpy(np.maximum(distance, 0))
