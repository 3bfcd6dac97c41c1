"""Layouts: how the examples of a step are arranged in micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sidtune.batching.forest import Forest, grow, lexicographic
from sidtune.batching.prefixes import Prefixes

Example = tuple[NDArray[np.int32], NDArray[np.int32], int]
LayoutName = Literal["padded", "bucketed", "tree"]

PADDED_MULTIPLE = 8
NEVER = 2**60
# A row of trees has a mask of its width squared; wider rows would save little more. Examples that
# are longer themselves may share a row of the second width: its mask takes 4,096 numbers per token,
# which is little beside the activations.
WIDEST_ROW, WIDEST_LONG_ROW = 1024, 4096


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass sees; arrays, since a tensor takes a file descriptor on its way from a
    worker.

    Args:
        input_ids: `(batch, length)`.
        attention_mask: `(batch, length)`, or None where causality alone keeps padding out.
        position_ids: `(batch, length)`, or None for 0, 1, 2, ….
        ends: `(batch, length)`, the first token behind the subtree of each one in layout `tree`,
            else None. A token is seen by itself and by what lies between it and there.
        rows, columns: `(labels,)`, where the hidden state lies that predicts each label.
        labels: `(labels,)` token ids.
        tasks: `(labels,)` number of the task each label belongs to.
        tokens: how many of the tokens are not padding.
        nodes: `(labels,)`, the SID prefix that each label continues, -1 where it is no token of a
            SID; None where the layout knows no prefixes.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64] | None
    position_ids: NDArray[np.int64] | None
    ends: NDArray[np.int64] | None
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    labels: NDArray[np.int64]
    tasks: NDArray[np.int64]
    tokens: int
    nodes: NDArray[np.int64] | None = None

    def to(self, device: torch.device) -> dict[str, torch.Tensor | None]:
        """What the model is given, by name, as tensors on a device."""
        return {
            name: None if value is None else torch.from_numpy(value).to(device)
            for name, value in vars(self).items()
            if name != "tokens"
        }


@dataclass(frozen=True)
class Layout:
    """Groups the examples of one rank's share of a step and lays each group out.

    Args:
        name: `padded`, `bucketed` or `tree`.
        limit: padded tokens of a micro-batch (a longer example stands alone); for `padded`, its
            examples.
        pad_id: fills up; never attended to by a label.
        pass_cost: what a forward and backward pass costs besides its tokens, in tokens.
        token_cost: for `tree`: what a token costs outside attention, in pairs of tokens inside it.
        prefixes: of the SIDs, where the loss asks which one a label continues.
        pads_left: for `padded`: as the usual collators do, which not every model takes.
    """

    name: LayoutName
    limit: int
    pad_id: int
    pass_cost: float = 0.0
    token_cost: float = 0.0
    prefixes: Prefixes | None = None
    pads_left: bool = True

    def micro_batches(self, examples: Sequence[Example]) -> list[MicroBatch]:
        """Lay examples out; the sum of their losses does not depend on how."""
        if not examples:
            return []
        if self.name == "tree":
            return _trees(examples, self)
        if self.name == "padded":
            groups = [
                range(i, min(i + self.limit, len(examples)))
                for i in range(0, len(examples), self.limit)
            ]
            pad = _left_padded if self.pads_left else _right_padded
            return [pad([examples[i] for i in group], self) for group in groups]
        return _bucketed(examples, self)


def idle_micro_batch(example: Example, layout: Layout) -> MicroBatch:
    """A forward pass that counts for nothing, for a rank whose share of the step is empty: no label
    is kept.
    """
    ids, _, task = example
    return _right_padded([(ids[:2], np.zeros((0, 2), np.int32), task)], layout)


def _buckets(widths: NDArray[np.int64], layout: Layout) -> list[NDArray[np.int64]]:
    """Rows in groups of like width, so that padding and passes together cost the least.

    By dynamic programming over the rows, widest first: the best groups of the first `n` rows end
    with a group that starts somewhere, and are the best groups of the rows before it.
    """
    order = np.argsort(-widths, kind="stable")
    width, count = widths[order], np.arange(len(widths) + 1)
    best, start = np.zeros(len(count)), np.zeros(len(count), np.int64)
    for end in count[1:]:
        padded = (end - count[:end]) * width[:end]
        padded[padded > layout.limit] = NEVER
        padded[end - 1] = width[end - 1]
        cost = best[:end] + padded
        start[end] = cost.argmin()
        best[end] = cost[start[end]] + layout.pass_cost
    groups, end = [], len(widths)
    while end:
        groups.append(order[start[end] : end])
        end = start[end]
    return groups[::-1]


def _left_padded(examples: Sequence[Example], layout: Layout) -> MicroBatch:
    """As the usual collators do: a multiple of eight wide, and a mask."""
    width = max(len(ids) for ids, _, _ in examples)
    width = -(-width // PADDED_MULTIPLE) * PADDED_MULTIPLE
    starts = width - np.array([len(ids) for ids, _, _ in examples])
    places = np.arange(width) - starts[:, None]
    batch = _rectangle(examples, width, starts, layout)
    return replace(
        batch, attention_mask=(places >= 0).astype(np.int64), position_ids=np.maximum(places, 0)
    )


def _right_padded(examples: Sequence[Example], layout: Layout) -> MicroBatch:
    """No real token sees what follows it, so this needs neither mask nor positions."""
    width = max(len(ids) for ids, _, _ in examples)
    return _rectangle(examples, width, np.zeros(len(examples), np.int64), layout)


def _rectangle(
    examples: Sequence[Example], width: int, starts: NDArray[np.int64], layout: Layout
) -> MicroBatch:
    """One example per row, starting in the first column."""
    input_ids = np.full((len(examples), width), layout.pad_id, np.int64)
    for index, ((ids, _, _), start) in enumerate(zip(examples, starts, strict=True)):
        input_ids[index, start : start + len(ids)] = ids
    found = _labels(examples, layout.prefixes)
    column = found.place + starts[found.example]
    tokens = sum(len(ids) for ids, _, _ in examples)
    lies = found.example, column - 1
    return MicroBatch(
        input_ids, None, None, None, *lies, found.token, found.task, tokens, found.node
    )


def _bucketed(examples: Sequence[Example], layout: Layout) -> list[MicroBatch]:
    """Examples of like length together, padded on the right."""
    if not examples:
        return []
    lengths = np.array([len(ids) for ids, _, _ in examples], np.int64)
    return [
        _right_padded([examples[i] for i in group], layout) for group in _buckets(lengths, layout)
    ]


def _trees(examples: Sequence[Example], layout: Layout) -> list[MicroBatch]:
    """Every shared prefix once; the last label of an example is only predicted, never read.

    Examples that are too long for an ordinary row share wider ones where that saves something. The
    others need no mask.
    """
    widest, widest_long = (min(width, layout.limit) for width in (WIDEST_ROW, WIDEST_LONG_ROW))
    long = [example for example in examples if len(example[0]) > widest]
    short = [example for example in examples if len(example[0]) <= widest]
    shared = _shares_row(long, layout, widest_long)
    return [
        *_bucketed(
            [example for example, shares in zip(long, shared, strict=True) if not shares], layout
        ),
        *_rows(
            [example for example, shares in zip(long, shared, strict=True) if shares],
            layout,
            widest_long,
        ),
        *_rows(short, layout, widest),
    ]


def _shares_row(examples: Sequence[Example], layout: Layout, widest: int) -> list[bool]:
    """Which examples would lie in one row with others."""
    if not examples:
        return []
    order, forest = _forest(examples, layout, widest)
    shares = np.zeros(len(examples), bool)
    shares[order] = np.bincount(forest.row)[forest.row] > 1
    return shares.tolist()


def _forest(examples: Sequence[Example], layout: Layout, widest: int) -> tuple[list[int], Forest]:
    """The order of examples in which they make trees, and the trees."""
    read = [ids[: spans[-1, 1] - 1] for ids, spans, _ in examples]
    order = lexicographic(read)
    return order, grow([read[i] for i in order], layout.token_cost, widest)


def _rows(examples: Sequence[Example], layout: Layout, widest: int) -> list[MicroBatch]:
    """Examples as rows of prefix trees, rows of like width together."""
    if not examples:
        return []
    order, forest = _forest(examples, layout, widest)
    labels = _labels([examples[i] for i in order], layout.prefixes)
    row, node = forest.row[labels.example], forest.node[labels.example, labels.place - 1]
    batches = []
    for group in _buckets(forest.widths, layout):
        place_in_group = np.full(len(forest.widths), -1)
        place_in_group[group] = np.arange(len(group))
        chosen = np.flatnonzero(place_in_group[row] >= 0)
        lies = place_in_group[row[chosen]], node[chosen]
        batches.append(_rows_of_trees(forest, group, layout.pad_id, lies, labels.take(chosen)))
    return batches


def _rows_of_trees(
    forest: Forest,
    group: NDArray[np.int64],
    pad_id: int,
    lies: tuple[NDArray[np.int64], NDArray[np.int64]],
    labels: _Labels,
) -> MicroBatch:
    """Some rows of a forest, filled up with tokens that see and are seen by nothing else.

    Args:
        lies: row and column of the hidden state that predicts each label.
    """
    width = int(forest.widths[group].max())
    tokens, depths, ends = (
        values[group, :width] for values in (forest.tokens, forest.depths, forest.ends)
    )
    padding = ends < 0
    return MicroBatch(
        np.where(padding, pad_id, tokens),
        None,
        np.maximum(depths, 0),
        np.where(padding, np.arange(1, width + 1), ends),
        *lies,
        labels.token,
        labels.task,
        int(forest.widths[group].sum()),
        labels.node,
    )


@dataclass(frozen=True)
class _Labels:
    """Of every label, `(labels,)` each: its example, its place there, its token id, its task and
    its SID prefix.
    """

    example: NDArray[np.int64]
    place: NDArray[np.int64]
    token: NDArray[np.int64]
    task: NDArray[np.int64]
    node: NDArray[np.int64] | None

    def take(self, chosen: NDArray[np.int64]) -> _Labels:
        """Some of the labels."""
        node = None if self.node is None else self.node[chosen]
        return _Labels(
            self.example[chosen], self.place[chosen], self.token[chosen], self.task[chosen], node
        )


def _labels(examples: Sequence[Example], prefixes: Prefixes | None) -> _Labels:
    ids, spans = [ids for ids, _, _ in examples], [spans for _, spans, _ in examples]
    flat = np.concatenate(spans).astype(np.int64).reshape(-1, 2)
    lengths = flat[:, 1] - flat[:, 0]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    example = np.repeat(np.repeat(np.arange(len(spans)), [len(span) for span in spans]), lengths)
    place = np.repeat(flat[:, 0], lengths) + within
    starts = np.cumsum([0, *(len(tokens) for tokens in ids)])
    token = np.concatenate(ids).astype(np.int64)[starts[example] + place]
    task = np.array([task for _, _, task in examples], np.int64)[example]
    return _Labels(
        example, place, token, task, None if prefixes is None else prefixes.walk(token, within == 0)
    )
