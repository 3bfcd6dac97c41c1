"""Prompts for recommendation: the training prompts, ending where the SID of the response begins."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from sidtune.base.errors import UserError, some
from sidtune.base.ragged import Ragged
from sidtune.data.rows import Rows
from sidtune.data.sequences import one_by_one
from sidtune.decoding.trie import beginnings, distinct_sids
from sidtune.encoding.encoder import Encoder
from sidtune.runs.bundle import Bundle, PromptIds
from sidtune.tasks.base import Part, history_columns
from sidtune.tasks.sid_sequence import refuse_nested, sequence_part
from sidtune.tokenizer.segments import segment_tokenizers
from sidtune.tokenizer.vocabulary import refuse_special


class Prompts:
    """Encodes histories exactly as in training, with the same encoder.

    An example needs a target: it gets the deepest SID of the catalogue, so that every answer has
    room, and loses it.

    Args:
        bundle: of the model.
        tokenizer: of the model; knows the SID tokens.

    Raises:
        UserError: for a tokenizer that does not know them, or reads prompts otherwise than the one
            of training did, for SID tokens that are its special tokens, and SIDs that the task
            could not have been trained with.
    """

    def __init__(self, bundle: Bundle, tokenizer: PreTrainedTokenizerFast) -> None:
        catalogue = bundle.catalogue
        refuse_special(tokenizer, catalogue.sid_tokens)
        if bundle.task == "sid_sequence":
            refuse_nested(bundle.task, set(catalogue.sids))
        self.segments = segment_tokenizers(tokenizer, catalogue.sid_tokens)
        _refuse_unknown(catalogue.sid_tokens, self.segments.added)
        self._task, self._longest_history = bundle.task, bundle.longest_history
        # Descriptions stand in no prompt of the task, and with one template there is nothing to
        # draw.
        self._encoder = Encoder(
            self.segments,
            bundle.frame,
            catalogue,
            {self._task: (bundle.template,)},
            bundle.cutoff_len,
            description_tokens=1,
            seed=0,
        )
        self._stand_in = max(range(len(catalogue.sids)), key=lambda item: len(catalogue.sids[item]))
        self.token_ids = {token: self.segments.added[token] for token in catalogue.sid_tokens}
        self.closing, self._before = self._around_answer(self._encoder.closing)
        self._slots = [name for segment in bundle.template.prompt for name in segment.names]
        expected, found = bundle.prompt_ids, self.around_history()
        # A template that was changed by hand may hold titles, and then nothing can be compared.
        if expected and found and expected != found:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} encodes the prompt differently than in"
                " training",
                "Use model and tokenizer of the same run, and the Transformers release it was"
                " trained with.",
            )

    @cached_property
    def sids(self) -> tuple[Ragged, NDArray[np.int64]]:
        """The catalogue's `distinct_sids`."""
        return distinct_sids(self._encoder.catalogue.sids, self.token_ids)

    @cached_property
    def begins(self) -> NDArray[np.bool_]:
        """Which of `sids` begin another one."""
        return beginnings(self.sids[0])

    def encode(self, history: Ragged) -> tuple[Ragged, NDArray[np.int64]]:
        """Prompts up to the first SID token of the answer; of a history longer than training had,
        the latest items.

        Args:
            history: n lists of catalogue positions, oldest first, none of them empty.

        Returns:
            Token ids, and `(prompts,)` which of the lists they are of: one that does not fit
            `cutoff_len` has none.
        """
        return self._up_to_answer(self._encoder, history.latest(self._longest_history))

    def _up_to_answer(self, encoder: Encoder, history: Ragged) -> tuple[Ragged, NDArray[np.int64]]:
        encoded = encoder.encode(self._part(history))
        starts, ends = encoded.label_spans.values[::2], encoded.label_spans.values[1::2]
        answers = ends.astype(np.int64) - starts - self._before
        return encoded.input_ids.drop_back(answers), encoded.rows

    def around_history(self) -> PromptIds | None:
        """The ids around the SIDs of a history; None where a prompt holds more of a user than
        these.
        """
        if self._slots != (["history_sids"] if self._task == "sid_next" else []):
            return None
        sid = [self.token_ids[token] for token in self._encoder.catalogue.sids[self._stand_in]]
        encoder = self._encoder.without_limit()
        items = Ragged.from_lists([[self._stand_in], [self._stand_in] * 2])
        ids, _ = self._up_to_answer(encoder, items)
        one, two = ids[0].tolist(), ids[1].tolist()
        begin = next(at for at in range(len(one)) if one[at : at + len(sid)] == sid)
        end = begin + len(sid)
        before, after = one[:begin], one[end:]
        return PromptIds(before, two[end : len(two) - len(after) - len(sid)], after)

    def _around_answer(self, closing: int) -> tuple[int, int]:
        """The token behind the SID in every response, `closing` where nothing stands there; the
        labels before it.
        """
        pieces = self._encoder.explain(
            self._part(Ragged.column(np.array([self._stand_in], np.int32))), 0
        )
        labels = [token for piece in pieces if piece.label for token in piece.ids]
        sid = [self.token_ids[token] for token in self._encoder.catalogue.sids[self._stand_in]]
        before = next(at for at in range(len(labels)) if labels[at : at + len(sid)] == sid)
        return [*labels, closing][before + len(sid)], before

    def _part(self, history: Ragged) -> Part:
        n = len(history)
        rows = Rows(pa.nulls(n, pa.string()), history, np.full(n, self._stand_in, np.int32))
        if self._task == "sid_sequence":
            return sequence_part(self._task, one_by_one(rows), np.arange(n))
        return Part(self._task, history_columns(rows, np.arange(n)), np.arange(n))


def with_prompt_ids(bundle: Bundle, tokenizer: PreTrainedTokenizerFast) -> Bundle:
    """The bundle with the ids that stand around a history in its prompts."""
    return replace(bundle, prompt_ids=Prompts(bundle, tokenizer).around_history())


def _refuse_unknown(sid_tokens: list[str], added: dict[str, int]) -> None:
    unknown = [token for token in sid_tokens if token not in added]
    if unknown:
        raise UserError(
            f"the tokenizer does not know {len(unknown):,} of the catalogue's {len(sid_tokens):,}"
            f" SID tokens, such as {some(unknown)}",
            "The model was trained with another index: use model and catalogue of the same run.",
        )
