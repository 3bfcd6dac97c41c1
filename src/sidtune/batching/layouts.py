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
# Maximum widths of a row of trees: its mask grows with the width squared, and wider rows save
# little more. Examples longer than the first may share rows of the second width, whose mask takes
# 4,096 values per token, little compared with the activations.
WIDEST_ROW, WIDEST_LONG_ROW = 1024, 4096


@dataclass(frozen=True)
class MicroBatch:
    """The input of one forward pass; as arrays, since a tensor sent by a loader worker takes a file
    descriptor.

    Args:
        input_ids: `(batch, length)`.
        attention_mask: `(batch, length)`, or None where the causal mask alone hides padding.
        position_ids: `(batch, length)`, or None for 0, 1, 2, ….
        ends: `(batch, length)`, in layout `tree` the first token after the subtree of each token,
            else None. A token is attended to by the tokens of its subtree, itself included.
        rows, columns: `(labels,)`, position of the hidden state that predicts each label.
        labels: `(labels,)` token ids.
        tasks: `(labels,)` number of the task each label belongs to.
        tokens: number of tokens that are not padding.
        nodes: `(labels,)`, the SID prefix that each label continues, -1 for labels that are not SID
            tokens; None if the layout has no prefixes.
        terms: `(labels, …)`, what a loss needs to know of each label besides its logits; None for
            most losses.
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
    terms: NDArray[np.float32] | None = None

    def to(self, device: torch.device) -> dict[str, torch.Tensor | None]:
        """The model's inputs by name, as tensors on a device."""
        return {
            name: None if value is None else torch.from_numpy(value).to(device)
            for name, value in vars(self).items()
            if name != "tokens"
        }


@dataclass(frozen=True)
class Layout:
    """Arranges one rank's examples of a step in micro-batches.

    Args:
        name: `padded`, `bucketed` or `tree`.
        limit: maximum padded tokens per micro-batch (a longer example gets its own); for `padded`,
            examples per micro-batch.
        pad_id: the padding token; labels never attend to it.
        pass_cost: fixed cost of a forward and backward pass, in tokens.
        token_cost: for `tree`: cost of one token outside attention, in query-key pairs.
        prefixes: SID prefixes, if the loss needs the one that each label continues.
        pads_left: for `padded`: pad on the left, as common collators do; not every model supports
            this.
    """

    name: LayoutName
    limit: int
    pad_id: int
    pass_cost: float = 0.0
    token_cost: float = 0.0
    prefixes: Prefixes | None = None
    pads_left: bool = True

    def micro_batches(self, examples: Sequence[Example]) -> list[MicroBatch]:
        """Lay examples out; their summed loss is the same in every layout."""
        if not examples:
            return []
        if self.name == "tree":
            return _trees(examples, self)
        if self.name == "padded":
            pad = _left_padded if self.pads_left else _right_padded
            starts = range(0, len(examples), self.limit)
            return [pad(examples[start : start + self.limit], self) for start in starts]
        return _bucketed(examples, self)


def idle_micro_batch(example: Example, layout: Layout) -> MicroBatch:
    """A micro-batch without labels, for a rank that has no examples in the step."""
    ids, _, task = example
    return _right_padded([(ids[:2], np.zeros((0, 2), np.int32), task)], layout)


def _buckets(widths: NDArray[np.int64], layout: Layout) -> list[NDArray[np.int64]]:
    """Group rows of similar width so that the total cost of padding and passes is minimal.

    Dynamic programming over the rows, widest first: the best grouping of the first `n` rows is some
    last group, preceded by the best grouping of the rows before it.
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
    """Pad on the left as common collators do: to a multiple of eight, with an attention mask."""
    width = max(len(ids) for ids, _, _ in examples)
    width = -(-width // PADDED_MULTIPLE) * PADDED_MULTIPLE
    starts = width - np.array([len(ids) for ids, _, _ in examples])
    places = np.arange(width) - starts[:, None]
    batch = _rectangle(examples, width, starts, layout)
    return replace(
        batch, attention_mask=(places >= 0).astype(np.int64), position_ids=np.maximum(places, 0)
    )


def _right_padded(examples: Sequence[Example], layout: Layout) -> MicroBatch:
    """Pad on the right; attention is causal, so this needs neither mask nor position ids."""
    width = max(len(ids) for ids, _, _ in examples)
    return _rectangle(examples, width, np.zeros(len(examples), np.int64), layout)


def _rectangle(
    examples: Sequence[Example], width: int, starts: NDArray[np.int64], layout: Layout
) -> MicroBatch:
    """One example per row, starting at the column in `starts`."""
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
    """Examples of similar length together, padded on the right."""
    if not examples:
        return []
    lengths = np.array([len(ids) for ids, _, _ in examples], np.int64)
    return [
        _right_padded([examples[i] for i in group], layout) for group in _buckets(lengths, layout)
    ]


def _trees(examples: Sequence[Example], layout: Layout) -> list[MicroBatch]:
    """Lay each shared prefix out once; an example's last label is predicted but is not an input.

    Examples too long for an ordinary row share wider rows where that saves computation. The
    remaining long ones are bucketed and need no mask.
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
    """Whether each example would share a row with others."""
    if not examples:
        return []
    order, forest = _forest(examples, layout, widest)
    shares = np.zeros(len(examples), bool)
    shares[order] = np.bincount(forest.row)[forest.row] > 1
    return shares.tolist()


def _forest(examples: Sequence[Example], layout: Layout, widest: int) -> tuple[list[int], Forest]:
    """The lexicographic order of the examples, and their prefix trees in that order."""
    read = [ids[: spans[-1, 1] - 1] for ids, spans, _ in examples]
    order = lexicographic(read)
    return order, grow([read[i] for i in order], layout.token_cost, widest)


def _rows(examples: Sequence[Example], layout: Layout, widest: int) -> list[MicroBatch]:
    """Examples as rows of prefix trees, rows of similar width together."""
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
    """Some rows of a forest, padded with tokens that attend, and are attended to, only by
    themselves.

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
    """Per label, `(labels,)` each: its example, position in the example, token id, task and SID
    prefix.
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
