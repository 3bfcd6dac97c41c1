"""Adds the SID tokens to a tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from transformers import AddedToken, PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.tokenizer.chat_tokens import literal_text, rendered_text
from sidtune.tokenizer.faults import refusing_faults

SHOWN = 5


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer extended by the SID tokens.

    Args:
        tokenizer: the extended tokenizer.
        sid_ids: ids of the catalogue's SID tokens, ascending, int64.
        new_ids: those without a trained row, because the base's tokenizer did not have them or its
            model has no row for them.
        rowless_ids: those of `new_ids` that the base's tokenizer had.
        known: number of tokens before the extension.
    """

    tokenizer: PreTrainedTokenizerFast
    sid_ids: NDArray[np.int64]
    new_ids: NDArray[np.int64]
    rowless_ids: NDArray[np.int64]
    known: int

    @property
    def trained_ids(self) -> NDArray[np.int64]:
        """SID tokens with a trained row in the base."""
        return np.setdiff1d(self.sid_ids, self.new_ids)

    @property
    def counts(self) -> str:
        """Readable counts of new SID tokens and of those with trained rows."""
        rowless, trained = len(self.rowless_ids), len(self.trained_ids)
        known = f", {rowless:,} of them only in the tokenizer" if rowless else ""
        return f"{len(self.new_ids):,} new{known}" + (
            f"; {trained:,} with trained rows" if trained else ""
        )

    def names(self, ids: NDArray[np.int64]) -> str:
        """The first few tokens, for messages."""
        shown = self.tokenizer.convert_ids_to_tokens(ids[:SHOWN].tolist())
        return " ".join(shown) + (" …" if len(ids) > SHOWN else "")


def extend_vocabulary(
    tokenizer: PreTrainedTokenizerFast, sid_tokens: Sequence[str], rows: int | None = None
) -> Vocabulary:
    """Add the SID tokens as added tokens; those that the tokenizer already has keep their ids.

    SID tokens that are special tokens become ordinary added tokens, since decoding would otherwise
    skip them.

    Args:
        rows: number of rows of the model's embedding; None counts every token of the tokenizer as
            trained.

    Raises:
        UserError: names tokens that contain white space, are a prefix of another, are ordinary
            text, have a role such as EOS, or cannot get an id of their own.
    """
    tokens = sorted(set(sid_tokens))
    _refuse(
        (t for t in tokens if not t or any(c.isspace() for c in t)),
        "are empty or contain white space",
        "Rename them.",
    )
    _refuse(
        # Sorted, so a token is directly followed by those it is a prefix of.
        (f"{a} of {b}" for a, b in pairwise(tokens) if b.startswith(a)),
        "are a prefix of another SID token",
        "End every token with a closing character, as in <a_1>.",
    )
    added = tokenizer.get_added_vocab()
    refuse_special(tokenizer, tokens)
    vocabulary = tokenizer.get_vocab()
    _refuse(
        (t for t in tokens if t in vocabulary and t not in added),
        "are already ordinary (not added) tokens of the tokenizer",
        "Rename them, for example to <a_1>.",
    )
    tokenizer = _without_special(tokenizer, tokens)
    known = len(tokenizer)
    new = [token for token in tokens if token not in added]
    with refusing_faults(tokenizer.name_or_path):
        tokenizer.add_tokens(_added(new))
    taken = set(vocabulary.values())
    _refuse(
        (t for t in new if tokenizer.convert_tokens_to_ids(t) in taken),
        "would get ids of other tokens, because the tokenizer's ids have gaps",
        "Use a base whose tokenizer has consecutive ids.",
    )
    new_ids, sid_ids = _ids(tokenizer, new), _ids(tokenizer, tokens)
    old_ids = np.setdiff1d(sid_ids, new_ids)
    rowless_ids = old_ids[:0] if rows is None else old_ids[old_ids >= rows]
    return Vocabulary(tokenizer, sid_ids, np.union1d(new_ids, rowless_ids), rowless_ids, known)


def refuse_special(tokenizer: PreTrainedTokenizerFast, sid_tokens: Iterable[str]) -> None:
    """Refuse SID tokens that already have a role: EOS, BOS, padding and other named special tokens,
    and tokens that the tokenizer or its chat template adds around a text.

    A token that is flagged as special but has no such role is accepted.

    Raises:
        UserError: names them.
    """
    tokens = list(sid_tokens)
    roles = set(tokenizer.special_tokens_map.values())
    with refusing_faults(tokenizer.name_or_path):
        roles.update(tokenizer.convert_ids_to_tokens(tokenizer("").input_ids))
    _refuse(
        (t for t in tokens if t in roles), "are special tokens of the tokenizer", "Rename them."
    )
    special = _special(tokenizer).intersection(tokens)
    written = literal_text(tokenizer) + (rendered_text(tokenizer) if special else "")
    _refuse(
        (t for t in tokens if t and t in written),
        "are used in the tokenizer's chat template",
        "Rename them.",
    )


def _special(tokenizer: PreTrainedTokenizerFast) -> set[str]:
    flagged = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return flagged.union(map(str, tokenizer.all_special_tokens))


def _without_special(
    tokenizer: PreTrainedTokenizerFast, sid_tokens: Sequence[str]
) -> PreTrainedTokenizerFast:
    """The tokenizer with the same ids, but without SID tokens among its special tokens."""
    special = _special(tokenizer).intersection(sid_tokens)
    if not special:
        return tokenizer
    with refusing_faults(tokenizer.name_or_path):
        tokenizer.add_tokens(_added(sorted(special)))
        tokenizer.extra_special_tokens = [
            t for t in tokenizer.extra_special_tokens if t not in special
        ]
        # The Rust tokenizer keeps its own list of special tokens, which is rebuilt on reloading.
        return copy.deepcopy(tokenizer)


def _added(tokens: Iterable[str]) -> list[AddedToken]:
    return [
        AddedToken(
            t, normalized=False, lstrip=False, rstrip=False, single_word=False, special=False
        )
        for t in tokens
    ]


def _ids(tokenizer: PreTrainedTokenizerFast, tokens: list[str]) -> NDArray[np.int64]:
    ids = tokenizer.convert_tokens_to_ids(tokens) if tokens else []
    return np.sort(np.array(ids, np.int64))


def _refuse(tokens: Iterable[str], why: str, remedy: str) -> None:
    found = list(tokens)
    if found:
        shown = ", ".join(map(repr, found[:SHOWN])) + (" …" if len(found) > SHOWN else "")
        raise UserError(f"{len(found):,} SID tokens {why}: {shown}", remedy)
