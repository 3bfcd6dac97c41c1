"""A model that also learned histories from newest to oldest, asked how well a history leads to an
item.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sidtune.base.ragged import Ragged, concatenate, row_of
from sidtune.batching.layouts import Layout, MicroBatch
from sidtune.config.search import MAX_TOKENS
from sidtune.decoding.token_scores import Head
from sidtune.encoding.encoder import Encoder
from sidtune.model.attention import attention_dtype, runs_trees, tree_mask
from sidtune.model.costs import pass_cost
from sidtune.runs.bundle import Bundle
from sidtune.tasks.base import Items, Part
from sidtune.tasks.sid_sequence_reversed import FORM
from sidtune.tokenizer.segments import SegmentTokenizers

# Latest items of a history that an item is asked about, and the weight of what it says.
LATEST, WEIGHT = 2, 0.5
# Query-key pairs that a token costs outside attention, per hidden value. Narrow rows are faster
# here than in training: at 12, 4, 2, 1 and 0.5 pairs a list of 50 took 20.6, 14.4, 13.0, 12.5 and
# 12.6 ms (hidden 128, one CPU core).
PAIRS_PER_HIDDEN = 1
# Items whose SIDs are looked at together when all of a catalogue are asked about.
ITEMS_AT_ONCE = 65_536


class Reverse:
    """Log-probabilities of histories read from newest to oldest.

    Args:
        bundle: of a model that learned `sid_sequence_reversed`.
        segments: tokenizers of the model.
        head: of the model, in evaluation mode.
    """

    def __init__(self, bundle: Bundle, segments: SegmentTokenizers, head: Head) -> None:
        assert bundle.reversed_template
        self._encoder = Encoder(
            segments,
            bundle.frame,
            bundle.catalogue,
            {FORM: (bundle.reversed_template,)},
            bundle.cutoff_len,
            description_tokens=1,
            seed=0,
        ).without_limit()
        self._head, self.device = head, head.model.device

    @cached_property
    def _layout(self) -> Layout:
        model = self._head.model
        longest = self._encoder.encode(_part(Ragged.from_lists([[0] * (LATEST + 1)]), 1))
        trees = runs_trees(model, 2 * len(longest.input_ids[0]))
        return Layout(
            "tree" if trees else "bucketed",
            MAX_TOKENS,
            pad_id=0,
            pass_cost=pass_cost(model),
            token_cost=PAIRS_PER_HIDDEN * model.config.get_text_config().hidden_size,
        )

    def leading_to(self, items: Ragged, history: Ragged) -> NDArray[np.float32]:
        """How well the latest items of a history lead to an item: `WEIGHT` · log P(latest | item).

        Added to log P(item | history), it puts a list in order by both directions: MMI-bidi of Li
        et al. (2016, “A Diversity-Promoting Objective Function for Neural Conversation Models”,
        section 4.5.2), which was made for answers in a conversation.

        Args:
            items: n lists of catalogue positions.
            history: n lists, oldest first, none of them empty.

        Returns:
            `(items,)`, one for each item of the lists.
        """
        latest = history.latest(LATEST).reversed().take(row_of(items))
        sequences = concatenate([Ragged.column(items.values), latest])
        return WEIGHT * self._log_probabilities(sequences, 1)

    def newest(self, items: int) -> NDArray[np.float32]:
        """The log-probability that each item of a catalogue is a user's newest, `(items,)`, with
        nothing known of the user: a popularity that similar SIDs share.
        """
        positions = np.arange(items, dtype=np.int32)
        parts = np.split(positions, range(ITEMS_AT_ONCE, items, ITEMS_AT_ONCE))
        found = [self._log_probabilities(Ragged.column(part), 0) for part in parts]
        return np.concatenate(found)

    def _log_probabilities(self, sequences: Ragged, context: int) -> NDArray[np.float32]:
        """Of the items behind the first `context` of each sequence, `(sequences,)`."""
        encoded = self._encoder.encode(_part(sequences, context))
        examples = [
            (encoded.input_ids[row], encoded.label_spans[row].reshape(-1, 2), row)
            for row in range(len(sequences))
        ]
        found = np.zeros(len(sequences))
        for batch in self._layout.micro_batches(examples):
            np.add.at(found, batch.tasks, self._of_labels(batch).float().cpu().numpy())
        return found.astype(np.float32)

    @torch.no_grad()
    def _of_labels(self, batch: MicroBatch) -> Tensor:
        """The log-probability of each label."""
        head, model = self._head, self._head.model
        given = batch.to(self.device)
        mask, ends, labels = given["attention_mask"], given["ends"], given["labels"]
        if ends is not None:
            mask = tree_mask(ends, attention_dtype(model.dtype, ends.device))
        rows, columns = given["rows"], given["columns"]
        assert labels is not None
        assert rows is not None
        assert columns is not None
        with head.at(rows, columns):
            states = model(
                input_ids=given["input_ids"],
                attention_mask=mask,
                position_ids=given["position_ids"],
                use_cache=False,
            ).logits[0]
        tokens, place = torch.unique(labels, return_inverse=True)
        found: Tensor = head.logits(states, tokens).gather(1, place[:, None])[:, 0]
        return found - head.normaliser(states)


def _part(sequences: Ragged, context: int) -> Part:
    n = len(sequences)
    columns = {"sequence_sids": Items(sequences, "sid", many=True)}
    return Part(FORM, columns, np.arange(n), context=np.full(n, context), newest_first=True)
