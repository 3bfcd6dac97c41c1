"""Examples → token ids: segments tokenised once, gathered and joined by vectorised code."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from sidtune.data.catalogue import Catalogue
from sidtune.data.history_keys import NO_HISTORY
from sidtune.encoding.chat import Frame
from sidtune.encoding.tokenizers import SegmentTokenizers, refuse_token_text
from sidtune.hashing import mix
from sidtune.model.tokenizer_faults import decode
from sidtune.ragged import Ragged, concatenate, place_of, repeat, stack
from sidtune.tasks.base import Column, ItemField, Items, Part, Texts
from sidtune.templates import SEQUENCE, Segment, Templates, Wording


@dataclass(frozen=True)
class Encoded:
    """Encoded examples.

    Args:
        input_ids: n lists of token ids.
        label_spans: n lists of `start, end` pairs into `input_ids`.
        rows: `(n,)`, the part's rows that were kept.
        histories: `(n,)`, the key of the history each example is about and of its form, or `NO_HISTORY`.
        truncated: how many of them lost history items.
        dropped: how many examples did not fit and are missing.
    """

    input_ids: Ragged
    label_spans: Ragged
    rows: NDArray[np.int64]
    histories: NDArray[np.int64]
    truncated: int
    dropped: int


@dataclass(frozen=True)
class Piece:
    """Some tokens of one example, as preview shows them."""

    ids: list[int]
    label: bool


class Encoder:
    """Encodes the parts of all tasks with one tokenizer, one set of templates and one length limit.

    Args:
        segments: the tokenizers of the extended tokenizer.
        frame: what stands before, between and after prompt and response (`plain` or `chat`).
        catalogue: descriptions are written up to `description_tokens` tokens.
        templates: wordings by form.
        cutoff_len: longest example in tokens.
        seed: chooses among several wordings of a form.
    """

    def __init__(
        self,
        segments: SegmentTokenizers,
        frame: Frame,
        catalogue: Catalogue,
        templates: Templates,
        cutoff_len: int,
        description_tokens: int,
        seed: int,
    ) -> None:
        self.segments, self.frame, self.catalogue, self.templates = segments, frame, catalogue, templates
        self.cutoff_len, self.description_tokens, self.seed = cutoff_len, description_tokens, seed
        self.item_texts = cache(self._item_texts)
        self.item_tokens = cache(self._item_tokens)
        self.safe_texts = cache(self._safe_texts)

    def encode(self, part: Part) -> Encoded:
        """Encode every example of a part; the order stays."""
        wordings = self.templates[part.form]
        choice = self.choose(part, len(wordings))
        pieces = [
            self._encode_worded(part.take(chosen), wording, chosen)
            for index, wording in enumerate(wordings)
            if len(chosen := np.flatnonzero(choice == index))
        ]
        if not pieces:
            return Encoded(repeat([], 0), repeat([], 0), part.rows, np.zeros(0, np.int64), 0, 0)
        positions = np.concatenate([piece.rows for piece in pieces])
        order = np.argsort(positions, kind="stable")
        return Encoded(
            stack([piece.input_ids for piece in pieces]).take(order),
            stack([piece.label_spans for piece in pieces]).take(order),
            part.rows[positions[order]],
            np.concatenate([piece.histories for piece in pieces])[order],
            sum(piece.truncated for piece in pieces),
            sum(piece.dropped for piece in pieces),
        )

    def choose(self, part: Part, wordings: int) -> NDArray[np.int64]:
        """Which wording each example gets, `(n,)`: a hash of seed, form and source row, the same in every run."""
        key = mix(np.array([zlib.crc32(part.form.encode()) << 32 | self.seed], np.uint64))
        return (mix(part.rows.astype(np.uint64) + key) % np.uint64(wordings)).astype(np.int64)

    def explain(self, part: Part, index: int) -> list[Piece]:
        """The segments of one example as they end up in `input_ids`, in order."""
        one = part.take(np.array([index]))
        wording = self._wording(one)
        drop, _ = self._fit(one, wording)
        one = one.drop_oldest(drop)
        prompt, response = self._pieces(one, wording)
        pieces = [Piece(piece[0].tolist(), False) for piece in prompt]
        if one.context is None:
            pieces += [Piece(piece[0].tolist(), True) for piece in response]
        else:
            spans = self._label_spans(one, wording, np.zeros(1, np.int64), response[0].lengths)
            pieces += _cut(response[0][0].tolist(), spans[0].tolist())
        return [piece for piece in pieces if piece.ids]

    def _wording(self, one: Part) -> Wording:
        wordings = self.templates[one.form]
        return wordings[int(self.choose(one, len(wordings))[0])]

    def reversible(self, part: Part, index: int, tokenizer: PreTrainedTokenizerFast) -> bool:
        """Whether decoding one example's ids gives back the text they came from, up to white space at its ends."""
        one = part.take(np.array([index]))
        wording = self._wording(one)
        prompt, response = self._content(one, wording)
        decoded = decode(tokenizer, concatenate([*prompt, *response])[0].tolist())
        segments = [*wording.prompt, *wording.response]
        text = "".join(self._formatted(segment, one, wording.separator, safe=False)[0] for segment in segments)
        return decoded.strip() == text.strip()

    def _encode_worded(self, part: Part, wording: Wording, positions: NDArray[np.int64]) -> Encoded:
        ids, starts = self._join(part, wording)
        long = np.flatnonzero(ids.lengths > self.cutoff_len)
        kept, drop = np.arange(len(part)), np.zeros(len(part), np.int64)
        if len(long):
            drop[long], fits = self._fit(part.take(long), wording)
            kept = np.delete(kept, long[~fits])
            part = part.take(kept).drop_oldest(drop[kept])
            ids, starts = self._join(part, wording)
        histories = np.full(len(kept), NO_HISTORY) if part.histories is None else part.histories
        spans = self._label_spans(part, wording, starts, ids.lengths)
        shortened = int(np.count_nonzero(drop[kept]))
        return Encoded(ids, spans, positions[kept], histories, shortened, len(positions) - len(kept))

    def _label_spans(self, part: Part, wording: Wording, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Ragged:
        """The response of each example from start to end; where items are targets of their own, each of these."""
        if part.context is None:
            return Ragged.from_lengths(np.stack([starts, ends], axis=1).reshape(-1), np.full(len(part), 2))
        begins, lengths = self._item_places(part, wording)
        label = place_of(begins) >= np.repeat(part.context, begins.lengths)
        begin = (begins.values + np.repeat(starts, begins.lengths))[label]
        spans = np.stack([begin, begin + lengths[label]], axis=1).reshape(-1)
        return Ragged.from_lengths(spans, 2 * (begins.lengths - part.context))

    def _item_places(self, part: Part, wording: Wording) -> tuple[Ragged, NDArray[np.int64]]:
        """Where each item's SID begins in its response, behind the separator, and how long it is, `(items,)`."""
        column = part.columns[SEQUENCE]
        assert isinstance(column, Items)
        lengths = self.item_tokens(column.field, False).lengths[column.positions.values]
        taken = lengths + self._separator_tokens(wording) * (place_of(column.positions) > 0)
        before = np.append(0, np.cumsum(taken))
        ends = before[1:] - np.repeat(before[column.positions.offsets[:-1]], column.positions.lengths)
        return Ragged.from_lengths(ends - lengths, column.positions.lengths), lengths

    def _fit(self, part: Part, wording: Wording) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """How many of the oldest history items each example loses, and whether it then fits, both `(n,)`.

        At least one item always stays: an example without any history asks about nobody.
        """
        drop = np.zeros(len(part), np.int64)
        fits = np.ones(len(part), bool)
        pending = np.arange(len(part))
        while len(pending):
            current = part.take(pending).drop_oldest(drop[pending])
            prompt, response = self._pieces(current, wording)
            lengths = np.stack([piece.lengths for piece in (*prompt, *response)])
            excess = lengths.sum(axis=0) - self.cutoff_len
            hopeless = (excess > 0) & (current.history_lengths <= 1)
            fits[pending[hopeless]] = False
            more = np.flatnonzero((excess > 0) & ~hopeless)
            if len(more):
                left = current.take(more)
                unpriced = self._formatted_list_tokens(left, wording, lengths[:, more])
                needed = self._items_worth(left, wording, excess[more] - unpriced)
                drop[pending[more]] += np.minimum(needed, left.history_lengths - 1)
            pending = pending[more]
        return drop, fits

    def _formatted_list_tokens(self, part: Part, wording: Wording, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each example's segments that hold a list among other text, `(n,)`.

        Such a segment is tokenised whole, so no single item of it has a price.

        Args:
            lengths: tokens of the segments and of the frame around them, as `_pieces` gives them, `(pieces, n)`.
        """
        segments = [None, *wording.prompt, None, *wording.response, None]
        whole = [
            segment is not None and segment.slot is None and any(_is_list(part.columns[name]) for name in segment.names)
            for segment in segments
        ]
        total: NDArray[np.int64] = lengths[whole].sum(axis=0)
        return total

    def _items_worth(self, part: Part, wording: Wording, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The fewest oldest items, at least one, that take so many tokens with them, `(n,)`.

        Every list that is written item by item counts, each time that it is written. Where all items together are not
        worth the tokens, the answer is the length of the list.
        """
        places = next(column.positions for column in part.columns.values() if _is_list(column))
        place, saved = place_of(places), np.zeros(len(places.values), np.int64)
        for index, segment in enumerate((*wording.prompt, *wording.response)):
            column = part.columns[segment.slot] if segment.slot else None
            if _is_list(column):
                opens = index == 0 and not self.frame.text_before
                saved += self._saved(column, wording, opens, part.newest_first)
        enough = (place > 0) & (saved >= np.repeat(tokens, places.lengths))
        fewest = np.where(enough, place, np.repeat(places.lengths, places.lengths))
        worth: NDArray[np.int64] = np.minimum.reduceat(fewest, places.offsets[:-1])
        return worth

    def _saved(self, column: Items, wording: Wording, opens: bool, newest_first: bool) -> NDArray[np.int64]:
        """Tokens that a list loses with its k oldest items and their separators, for every k below its length.

        Returns:
            `(items,)`: what stands at an item's place k is for k items.
        """
        items, place = column.positions, place_of(column.positions)
        inner = self.item_tokens(column.field, False).lengths[items.values]
        total: NDArray[np.int64] = np.append(0, np.cumsum(inner + self._separator_tokens(wording)))
        if newest_first:
            ends = np.repeat(items.offsets[1:], items.lengths)
            newest: NDArray[np.int64] = total[ends] - total[ends - place]
            return newest
        starts = np.repeat(items.offsets[:-1], items.lengths)
        # The item that opens the sequence is tokenised as such, and so is the one that comes to stand in its place.
        more = self.item_tokens(column.field, opens).lengths[items.values] - inner
        oldest: NDArray[np.int64] = total[starts + place] - total[starts] + more[starts] - more
        return oldest

    def _separator_tokens(self, wording: Wording) -> int:
        return len(self._constant(wording.separator, False)) if wording.separator else 0

    def _join(self, part: Part, wording: Wording) -> tuple[Ragged, NDArray[np.int64]]:
        """The ids of every example, and where its response starts."""
        prompt, response = self._pieces(part, wording)
        starts: NDArray[np.int64] = np.sum([piece.lengths for piece in prompt], axis=0)
        return concatenate([*prompt, *response]), starts

    def _pieces(self, part: Part, wording: Wording) -> tuple[list[Ragged], list[Ragged]]:
        """Prompt and response, segment by segment, with the frame's own tokens around them."""
        n, frame = len(part), self.frame
        prompt, response = self._content(part, wording)
        return (
            [repeat(frame.before, n), *prompt, repeat(frame.between, n)],
            [*response, repeat(frame.after if part.context is None else [], n)],
        )

    def _content(self, part: Part, wording: Wording) -> tuple[list[Ragged], list[Ragged]]:
        """Prompt and response, segment by segment."""
        opens = not self.frame.text_before
        prompt = [
            self._segment(segment, part, wording.separator, first=opens and index == 0)
            for index, segment in enumerate(wording.prompt)
        ]
        return prompt, [self._segment(segment, part, wording.separator, first=False) for segment in wording.response]

    def _segment(self, segment: Segment, part: Part, separator: str, first: bool) -> Ragged:
        if not segment.names:
            return repeat(self._constant(segment.pieces[0][0], first), len(part))
        if segment.slot is None:
            return Ragged.from_lists(self.segments.template(self._formatted(segment, part, separator), first))
        column = part.columns[segment.slot]
        if isinstance(column, Texts):
            encode = self.segments.data_with_sids if column.sids else self.segments.data
            return Ragged.from_lists(encode(column.values.to_pylist(), first))
        if first or (column.many and separator):
            return self._listed(column, separator, first)
        return column.positions.flatten(self.item_tokens(column.field, False))

    def _listed(self, column: Items, separator: str, first: bool) -> Ragged:
        """Items with the separator between them: the table holds each item with and without one in front."""
        table = self.item_tokens(column.field, False)
        between = repeat(self._constant(separator, False) if separator else [], len(table))
        opening = self.item_tokens(column.field, first)
        both = stack([concatenate([between, table]), opening])
        positions = column.positions.values.copy()
        leading = column.positions.offsets[:-1][column.positions.lengths > 0]
        positions[leading] += len(table)
        return Ragged(positions, column.positions.offsets).flatten(both)

    def _formatted(self, segment: Segment, part: Part, separator: str, safe: bool = True) -> list[str]:
        """The segment's text for every example; `safe` refuses data text that would turn into tokens."""
        names = dict.fromkeys(segment.names)
        columns = {name: self._column_texts(part.columns[name], separator, name, safe) for name in names}
        return [
            "".join(text + (columns[name][row] if name else "") for text, name in segment.pieces)
            for row in range(len(part))
        ]

    def _column_texts(self, column: Column, separator: str, name: str, safe: bool) -> list[str]:
        if isinstance(column, Texts):
            texts: list[str] = column.values.to_pylist()
            if safe:
                refuse_token_text(texts, self.segments, name, column.sids)
            return texts
        items = self.safe_texts(column.field) if safe else self.item_texts(column.field)
        offsets, flat = column.positions.offsets, [items[position] for position in column.positions.values]
        return [separator.join(flat[offsets[row] : offsets[row + 1]]) for row in range(len(column.positions))]

    def _constant(self, text: str, first: bool) -> list[int]:
        return self.segments.template([text], first)[0]

    def _item_texts(self, field: ItemField) -> list[str]:
        if field == "sid":
            return ["".join(sid) for sid in self.catalogue.sids]
        if field == "title":
            return self.catalogue.titles
        return self.segments.cut(self.catalogue.descriptions, self.description_tokens)

    def _safe_texts(self, field: ItemField) -> list[str]:
        texts: list[str] = self.item_texts(field)
        if field != "sid":
            refuse_token_text(texts, self.segments, f"the {field}")
        return texts

    def _item_tokens(self, field: ItemField, first: bool) -> Ragged:
        """Ids of every item's SID, title or description; computed once."""
        if field == "sid":
            ids: Sequence[Sequence[int]] = [
                [self.segments.added[token] for token in sid] for sid in self.catalogue.sids
            ]
        else:
            ids = self.segments.data(self.item_texts(field), first)
        return Ragged.from_lists(ids)


def _is_list(column: Column | None) -> TypeGuard[Items]:
    return isinstance(column, Items) and column.many


def _cut(ids: list[int], edges: list[int]) -> list[Piece]:
    """Ids cut at the edges of label spans: what lies outside of them, and inside, in turn."""
    cuts = zip([0, *edges], [*edges, len(ids)], strict=True)
    return [Piece(ids[start:end], bool(number % 2)) for number, (start, end) in enumerate(cuts)]
