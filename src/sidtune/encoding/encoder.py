"""Encodes examples as token ids: each text is tokenised once, then gathered and joined by
vectorised code.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.base.hashing import mix
from sidtune.base.ragged import Ragged, concatenate, place_of, repeat, stack
from sidtune.config.section import MOST
from sidtune.data.catalogue import Catalogue
from sidtune.data.history_keys import NO_HISTORY
from sidtune.encoding.cutting import fit
from sidtune.encoding.encoded import Encoded, Piece, Place
from sidtune.encoding.frame import PLAIN, Frame, FramedTemplate, framed
from sidtune.tasks.base import Column, ItemField, Items, Part, Texts
from sidtune.templates import SEQUENCE, Segment, Templates
from sidtune.tokenizer.faults import decode
from sidtune.tokenizer.segments import SegmentTokenizers, refuse_token_text


class Encoder:
    """Encodes the parts of all tasks with a tokenizer, templates and a length limit.

    Args:
        segments: tokenizers derived from the extended tokenizer.
        frame: the text around prompt and response (`plain` or `chat`).
        catalogue: items; descriptions are truncated to `description_tokens` tokens.
        templates: templates by name.
        cutoff_len: maximum example length in tokens.
        seed: chooses among several templates of the same name.
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
        self.segments, self.frame = segments, frame
        self.catalogue, self.templates = catalogue, templates
        self.cutoff_len, self.description_tokens, self.seed = cutoff_len, description_tokens, seed
        self._framed = {
            form: tuple(framed(template, frame) for template in given)
            for form, given in templates.items()
        }
        self.item_texts = cache(self._item_texts)
        self._item_tables = cache(self._item_table)
        self.safe_texts = cache(self._safe_texts)

    @cached_property
    def closing(self) -> int:
        """The id of the closing token, which ends every response.

        Raises:
            UserError: if the text after the response does not end with an added token.
        """
        if self.frame.eos:
            return self.segments.eos_id
        ids = self.segments.template([self.frame.after], first=False)[0]
        if self.segments.added_ids.isdisjoint(ids[-1:]):
            message = (
                f"the text that ends a response, {self.frame.after!r:.80}, is not a token of"
                f" {self.segments.name}"
            )
            raise UserError(message, "Use model and tokenizer of the same run.")
        return ids[-1]

    def encode(self, part: Part) -> Encoded:
        """Encode every example of a part, in order."""
        templates = self._framed[part.form]
        choice = self.choose(part, len(templates))
        pieces = [
            self._encode_with(part.take(chosen), template, chosen)
            for index, template in enumerate(templates)
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

    def choose(self, part: Part, count: int) -> NDArray[np.int64]:
        """The template of each example, `(n,)`, by a hash of seed, template name and source row;
        equal in every run.
        """
        key = mix(np.array([zlib.crc32(part.form.encode()) << 32 | self.seed], np.uint64))
        return (mix(part.rows.astype(np.uint64) + key) % np.uint64(count)).astype(np.int64)

    def explain(self, part: Part, index: int) -> list[Piece]:
        """The segments of one example as they appear in `input_ids`, in order."""
        one = part.take(np.array([index]))
        template = self._template(one)
        drop, _ = fit(self, one, template)
        one = one.drop_oldest(drop)
        prompt, response = self.pieces(one, template)
        pieces = [Piece(piece[0].tolist(), False) for piece in prompt]
        if one.context is None:
            pieces += [Piece(piece[0].tolist(), True) for piece in response]
        else:
            spans = self._label_spans(one, template, np.zeros(1, np.int64), response[0].lengths)
            pieces += _cut(response[0][0].tolist(), spans[0].tolist())
        return [piece for piece in pieces if piece.ids]

    def _template(self, one: Part) -> FramedTemplate:
        templates = self._framed[one.form]
        return templates[int(self.choose(one, len(templates))[0])]

    def reversible(self, part: Part, index: int, tokenizer: PreTrainedTokenizerFast) -> bool:
        """Whether decoding an example's ids returns its text, up to leading and trailing white
        space.
        """
        one = part.take(np.array([index]))
        # Without the frame: the chat template may add blanks.
        plain = self._plain
        prompt, response = plain._content(one, plain._template(one))
        decoded = decode(tokenizer, concatenate([*prompt, *response])[0].tolist())
        return decoded.strip() == "".join(self.texts(part, index)).strip()

    def texts(self, part: Part, index: int) -> tuple[str, str]:
        """Prompt and response of one example as text, without the frame."""
        one = part.take(np.array([index]))
        template = self._plain._template(one)
        prompt, response = (
            "".join(self._formatted(segment, one, template, safe=False)[0] for segment in segments)
            for segments in (template.prompt, template.response)
        )
        return prompt, response

    @cached_property
    def _plain(self) -> Encoder:
        return self.framed_by(PLAIN) if self.frame.chat else self

    def without_limit(self) -> Encoder:
        """A copy without a length limit."""
        unlimited = copy(self)
        unlimited.cutoff_len = MOST
        return unlimited

    def framed_by(self, frame: Frame) -> Encoder:
        """A copy with another frame."""
        return Encoder(
            self.segments,
            frame,
            self.catalogue,
            self.templates,
            self.cutoff_len,
            self.description_tokens,
            self.seed,
        )

    def _encode_with(
        self, part: Part, template: FramedTemplate, positions: NDArray[np.int64]
    ) -> Encoded:
        ids, starts = self._join(part, template)
        long = np.flatnonzero(ids.lengths > self.cutoff_len)
        kept, drop = np.arange(len(part)), np.zeros(len(part), np.int64)
        if len(long):
            drop[long], fits = fit(self, part.take(long), template)
            kept = np.delete(kept, long[~fits])
            part = part.take(kept).drop_oldest(drop[kept])
            ids, starts = self._join(part, template)
        histories = np.full(len(kept), NO_HISTORY) if part.histories is None else part.histories
        spans = self._label_spans(part, template, starts, ids.lengths)
        shortened = int(np.count_nonzero(drop[kept]))
        return Encoded(
            ids, spans, positions[kept], histories, shortened, len(positions) - len(kept)
        )

    def _label_spans(
        self,
        part: Part,
        template: FramedTemplate,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
    ) -> Ragged:
        """Label spans: the whole response of each example, or one span per target item of a
        sequence.
        """
        if part.context is None:
            return Ragged.from_lengths(
                np.stack([starts, ends], axis=1).reshape(-1), np.full(len(part), 2)
            )
        begins, lengths = self._item_places(part, template)
        label = place_of(begins) >= np.repeat(part.context, begins.lengths)
        begin = (begins.values + np.repeat(starts, begins.lengths))[label]
        spans = np.stack([begin, begin + lengths[label]], axis=1).reshape(-1)
        return Ragged.from_lengths(spans, 2 * (begins.lengths - part.context))

    def _item_places(
        self, part: Part, template: FramedTemplate
    ) -> tuple[Ragged, NDArray[np.int64]]:
        """Start of each item's SID in its response, after the separator, and its length,
        `(items,)`.
        """
        column = part.columns[SEQUENCE]
        assert isinstance(column, Items)
        lengths = self.item_tokens(column.field, False).lengths[column.positions.values]
        taken = lengths + len(self.separating(template.separator, column.field)) * (
            place_of(column.positions) > 0
        )
        before = np.append(0, np.cumsum(taken))
        ends = before[1:] - np.repeat(
            before[column.positions.offsets[:-1]], column.positions.lengths
        )
        return Ragged.from_lengths(ends - lengths, column.positions.lengths), lengths

    def _join(self, part: Part, template: FramedTemplate) -> tuple[Ragged, NDArray[np.int64]]:
        """The ids of every example, and the start of its response."""
        prompt, response = self.pieces(part, template)
        starts: NDArray[np.int64] = np.sum([piece.lengths for piece in prompt], axis=0)
        return concatenate([*prompt, *response]), starts

    def pieces(self, part: Part, template: FramedTemplate) -> tuple[list[Ragged], list[Ragged]]:
        """Prompt and response, segment by segment, including the tokens of the frame."""
        n, whole = len(part), part.context is None
        prompt, response = self._content(part, template)
        bos = [] if self.frame.chat else self.segments.prefix_ids
        eos = [self.segments.eos_id] if self.frame.eos and whole else []
        return [repeat(bos, n), *prompt], [*response, repeat(eos, n)]

    def _content(self, part: Part, template: FramedTemplate) -> tuple[list[Ragged], list[Ragged]]:
        """Prompt and response, segment by segment."""
        segments, answer = [*template.prompt, *template.response], len(template.prompt)
        places = self.places(part, template)
        contents = [
            self._segment(segment, part, template, place)
            for segment, place in zip(segments, places, strict=True)
        ]
        return contents[:answer], contents[answer:]

    def places(self, part: Part, template: FramedTemplate) -> list[Place]:
        """What precedes each segment of prompt and response."""
        segments, answer = [*template.prompt, *template.response], len(template.prompt)
        places = [Place(True, True)] + [
            Place(False, self._ends_in_token(before, part)) for before in segments[:-1]
        ]
        if self.frame.chat and answer:
            # The response starts inside a text of the chat template, so the preceding text affects
            # its tokenisation.
            places[answer] = replace(places[answer], text=template.prompt[-1].pieces[-1][0])
        return places

    def _ends_in_token(self, segment: Segment, part: Part) -> bool:
        """Whether the last token of a segment is an added token, so that the next text is tokenised
        separately.
        """
        text, name = segment.pieces[-1]
        if name is not None:
            column = part.columns[name]
            return isinstance(column, Items) and column.field == "sid"
        return not self.segments.added_ids.isdisjoint(
            self.segments.template([text], first=False)[0][-1:]
        )

    def _segment(
        self, segment: Segment, part: Part, template: FramedTemplate, place: Place
    ) -> Ragged:
        if not segment.names:
            return repeat(self._written([segment.pieces[0][0]], place)[0], len(part))
        if segment.slot is None:
            return Ragged.from_lists(self._written(self._formatted(segment, part, template), place))
        first = self.opens(place)
        column = part.columns[segment.slot]
        trim = template.trims.get(segment.slot, ("", ""))
        if isinstance(column, Texts):
            encode = self.segments.data_with_sids if column.sids else self.segments.data
            return Ragged.from_lists(encode(_without(column.values.to_pylist(), *trim), first))
        if column.many:
            return self._listed(column, template.separator, first)
        return column.positions.flatten(self.item_tokens(column.field, first, *trim))

    def opens(self, place: Place) -> bool:
        """Whether data here is tokenised as the start of a text, with a leading space if the
        tokenizer adds one.
        """
        spaced = self.frame.chat and self.segments.spaces_after_tokens
        return place.first or (spaced and place.behind_token)

    def _written(self, texts: list[str], place: Place) -> list[list[int]]:
        """Token ids of template texts."""
        if self.frame.chat and not place.first:
            return self.segments.whole(texts, place.behind_token, place.text)
        return self.segments.template(texts, place.first)

    def separating(self, separator: str, field: ItemField) -> list[int]:
        """Token ids of the separator between two items."""
        return self._written([separator], Place(False, field == "sid"))[0] if separator else []

    def _listed(self, column: Items, separator: str, first: bool) -> Ragged:
        """Items joined by the separator, from tables of items with and without a
        leading separator.
        """
        table = self.item_tokens(column.field, False)
        if not first and not separator:
            return column.positions.flatten(table)
        between = repeat(self.separating(separator, column.field), len(table))
        opening = self.item_tokens(column.field, first)
        both = stack([concatenate([between, table]), opening])
        positions = column.positions.values.copy()
        leading = column.positions.offsets[:-1][column.positions.lengths > 0]
        positions[leading] += len(table)
        return Ragged(positions, column.positions.offsets).flatten(both)

    def _formatted(
        self, segment: Segment, part: Part, template: FramedTemplate, safe: bool = True
    ) -> list[str]:
        """The segment's text for every example; `safe` refuses data text that contains added
        tokens.
        """
        names = dict.fromkeys(segment.names)
        columns = {
            name: self._column_texts(part.columns[name], template, name, safe) for name in names
        }
        return [
            "".join(text + (columns[name][row] if name else "") for text, name in segment.pieces)
            for row in range(len(part))
        ]

    def _column_texts(
        self, column: Column, template: FramedTemplate, name: str, safe: bool
    ) -> list[str]:
        trim = template.trims.get(name, ("", ""))
        if isinstance(column, Texts):
            texts = _without(column.values.to_pylist(), *trim)
            if safe:
                refuse_token_text(texts, self.segments, name, column.sids)
            return texts
        items = self.safe_texts(column.field) if safe else self.item_texts(column.field)
        flat = [items[position] for position in column.positions.values]
        edges = pairwise(column.positions.offsets)
        joined = [template.separator.join(flat[start:end]) for start, end in edges]
        return _without(joined, *trim)

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

    def item_tokens(self, field: ItemField, first: bool, front: str = "", back: str = "") -> Ragged:
        """Token ids of every item's SID, title or description; computed once."""
        # Written out, since a cache takes a default left out and one given for different calls.
        return self._item_tables(field, first, front, back)

    def _item_table(self, field: ItemField, first: bool, front: str, back: str) -> Ragged:
        if field == "sid":
            ids: Sequence[Sequence[int]] = [
                [self.segments.added[token] for token in sid] for sid in self.catalogue.sids
            ]
        else:
            ids = self.segments.data(_without(self.item_texts(field), front, back), first)
        return Ragged.from_lists(ids)


def _without(texts: Sequence[str], front: str, back: str) -> list[str]:
    """Texts with these characters stripped at the start and at the end."""
    return [text.lstrip(front).rstrip(back) for text in texts]


def _cut(ids: list[int], edges: list[int]) -> list[Piece]:
    """Ids split at the borders of label spans: alternating pieces outside and inside of spans."""
    cuts = zip([0, *edges], [*edges, len(ids)], strict=True)
    return [Piece(ids[start:end], bool(number % 2)) for number, (start, end) in enumerate(cuts)]
