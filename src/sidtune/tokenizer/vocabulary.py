"""Extending a tokenizer by the SID tokens."""

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
    """A tokenizer that knows the SID tokens.

    Args:
        tokenizer: the extended tokenizer.
        sid_ids: ids of the catalogue's SID tokens, ascending, int64.
        new_ids: those of them without a trained row, because the base's tokenizer did not have them or its model has
            no row for them.
        rowless_ids: those of `new_ids` that the tokenizer had.
        known: number of tokens before the extension.
    """

    tokenizer: PreTrainedTokenizerFast
    sid_ids: NDArray[np.int64]
    new_ids: NDArray[np.int64]
    rowless_ids: NDArray[np.int64]
    known: int

    @property
    def trained_ids(self) -> NDArray[np.int64]:
        """SID tokens whose rows the base has trained."""
        return np.setdiff1d(self.sid_ids, self.new_ids)

    @property
    def counts(self) -> str:
        """How many SID tokens start anew and how many have a trained row, in words."""
        rowless, trained = len(self.rowless_ids), len(self.trained_ids)
        known = f", {rowless:,} of them known to the tokenizer only" if rowless else ""
        return f"{len(self.new_ids):,} new{known}" + (f"; {trained:,} with trained rows" if trained else "")

    def names(self, ids: NDArray[np.int64]) -> str:
        """The first few of some tokens."""
        shown = self.tokenizer.convert_ids_to_tokens(ids[:SHOWN].tolist())
        return " ".join(shown) + (" …" if len(ids) > SHOWN else "")


def extend_vocabulary(
    tokenizer: PreTrainedTokenizerFast, sid_tokens: Sequence[str], rows: int | None = None
) -> Vocabulary:
    """Add the SID tokens as hard boundaries; those that the tokenizer already has as added tokens keep their ids.

    Those that it has as special tokens become ordinary added ones, or decoding without special tokens would drop them.

    Args:
        rows: trained rows of the model's embedding; without it, every token of the tokenizer counts as trained.

    Raises:
        UserError: names tokens that hold white space, begin another, are ordinary text, have a role such as EOS, or
            cannot have an id of their own.
    """
    tokens = sorted(set(sid_tokens))
    _refuse(
        (t for t in tokens if not t or any(c.isspace() for c in t)), "are empty or hold white space", "Rename them."
    )
    _refuse(
        # Sorted, so whatever a token begins stands right behind it.
        (f"{a} of {b}" for a, b in pairwise(tokens) if b.startswith(a)),
        "are the beginning of another",
        "Close every token, as in <a_1>.",
    )
    added = tokenizer.get_added_vocab()
    refuse_special(tokenizer, tokens)
    vocabulary = tokenizer.get_vocab()
    _refuse(
        (t for t in tokens if t in vocabulary and t not in added),
        "are ordinary text to the tokenizer already",
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
        "get the ids of other tokens, because the tokenizer's own ids have gaps",
        "Use a base whose tokenizer numbers its tokens without gaps.",
    )
    new_ids, sid_ids = _ids(tokenizer, new), _ids(tokenizer, tokens)
    old_ids = np.setdiff1d(sid_ids, new_ids)
    rowless_ids = old_ids[:0] if rows is None else old_ids[old_ids >= rows]
    return Vocabulary(tokenizer, sid_ids, np.union1d(new_ids, rowless_ids), rowless_ids, known)


def refuse_special(tokenizer: PreTrainedTokenizerFast, sid_tokens: Iterable[str]) -> None:
    """Refuse SID tokens that mean something else already: EOS, BOS, padding and others with a name, and what the
    tokenizer or its chat template writes around a text.

    A token that is flagged special and has no such role is a SID token like any other.

    Raises:
        UserError: names them.
    """
    tokens = list(sid_tokens)
    roles = set(tokenizer.special_tokens_map.values())
    with refusing_faults(tokenizer.name_or_path):
        roles.update(tokenizer.convert_ids_to_tokens(tokenizer("").input_ids))
    _refuse((t for t in tokens if t in roles), "are special tokens of the tokenizer", "Rename them.")
    special = _special(tokenizer).intersection(tokens)
    written = literal_text(tokenizer) + (rendered_text(tokenizer) if special else "")
    _refuse((t for t in tokens if t and t in written), "stand in the tokenizer's chat template", "Rename them.")


def _special(tokenizer: PreTrainedTokenizerFast) -> set[str]:
    flagged = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return flagged.union(map(str, tokenizer.all_special_tokens))


def _without_special(tokenizer: PreTrainedTokenizerFast, sid_tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """The tokenizer with the same ids, and no SID token among its special tokens."""
    special = _special(tokenizer).intersection(sid_tokens)
    if not special:
        return tokenizer
    with refusing_faults(tokenizer.name_or_path):
        tokenizer.add_tokens(_added(sorted(special)))
        tokenizer.extra_special_tokens = [t for t in tokenizer.extra_special_tokens if t not in special]
        # Its Rust half keeps a list of special tokens, which is made anew when it is read again.
        return copy.deepcopy(tokenizer)


def _added(tokens: Iterable[str]) -> list[AddedToken]:
    return [
        AddedToken(t, normalized=False, lstrip=False, rstrip=False, single_word=False, special=False) for t in tokens
    ]


def _ids(tokenizer: PreTrainedTokenizerFast, tokens: list[str]) -> NDArray[np.int64]:
    ids = tokenizer.convert_tokens_to_ids(tokens) if tokens else []
    return np.sort(np.array(ids, np.int64))


def _refuse(tokens: Iterable[str], why: str, remedy: str) -> None:
    found = list(tokens)
    if found:
        shown = ", ".join(map(repr, found[:SHOWN])) + (" …" if len(found) > SHOWN else "")
        raise UserError(f"{len(found):,} SID tokens {why}: {shown}", remedy)
